"""How alike scores are, and how they are spread: tables, JSON, and pages to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from lightning_prune.analysis.keys import ALL, short_names
from lightning_prune.analysis.scores import ScorePair, ScoreReport, ScoreTable
from lightning_prune.analysis.statistics import Agreement, Distribution
from lightning_prune.report.files import Document, write
from lightning_prune.report.numbers import share_text
from lightning_prune.report.scores_pdf import NEEDS, can_draw, write_scores_pdf
from lightning_prune.report.tables import Figure, Row, Table

__all__ = ["scores_document", "write_scores"]

MOST_ROWS = 100
"""Above this many, a table on the terminal has its last row only."""
CORRELATIONS = ("pearson", "spearman", "cosine")
OVERLAPS = (
    ("kept in common", "jaccard"),
    ("by chance", "jaccard_by_chance"),
    ("removed in common", "removed_jaccard"),
)


def scores_document(report: ScoreReport) -> Document:
    """Scores as they are printed: a table for each pair, and one of how they are spread."""
    alone = "One set of scores of each kind; name a second plan to compare it with."
    return Document(
        "scores",
        report.to_dict(),
        printed=[
            *(_agreements(pair) for pair in report.pairs),
            *([] if report.pairs else [alone, ""]),
            _distributions(report),
        ],
    )


def write_scores(report: ScoreReport, folder: str | Path) -> dict[str, str]:
    """Write scores.json and, where matplotlib is installed, scores.pdf; returns paths by name.

    Raises:
        OSError: the folder cannot be written.
    """
    files = write(scores_document(report), folder)
    if not can_draw():
        return files | {"scores.pdf": f"left out: {NEEDS}"}
    path = Path(folder) / "scores.pdf"
    write_scores_pdf(path, report)
    return files | {"scores.pdf": str(path)}


def _agreements(pair: ScorePair) -> Table:
    """A row for each block or matrix, and one of all together."""
    decided = pair.agreements[ALL].overlap is not None
    header = (
        "weight" if pair.a.unit == "weight" else "block",
        *("Pearson", "Spearman", "cosine"),
        *((name for name, _ in OVERLAPS) if decided else ()),
    )
    keys = list(pair.agreements)
    names = short_names(keys)
    rows: list[Row] = [
        (names[key], *_agreement(pair.agreements[key], decided))
        for key in (keys if len(keys) <= MOST_ROWS else [ALL])
    ]
    title = f"{pair.a.label} and {pair.b.label}\nscores of {pair.a.unit}s"
    return Table(title, header, rows, total=len(rows) > 1)


def _agreement(agreement: Agreement, decided: bool) -> list[Figure]:
    values = [getattr(agreement, name) for name in CORRELATIONS]
    figures = [Figure(v, "-" if math.isnan(v) else f"{v:.3f}") for v in values]
    if decided and agreement.overlap is not None:
        shares = [getattr(agreement.overlap, name) for _, name in OVERLAPS]
        figures += [Figure(share, share_text(share)) for share in shares]
    return figures + [Figure(None, "")] * (len(CORRELATIONS) + 3 * decided - len(figures))


def _distributions(report: ScoreReport) -> Table:
    rows = [_distribution(table, spread) for table, spread in report.distributions]
    header = ("scores", "mean", "std", "min", "5%", "median", "95%", "max")
    return Table("distributions, all blocks together", header, rows)


def _distribution(
    table: ScoreTable, spread: Mapping[str, Distribution]
) -> tuple[str | Figure, ...]:
    every = spread[ALL]
    middle = (every.quantiles[share] for share in (0.05, 0.5, 0.95))
    values = (every.mean, every.std, every.min, *middle, every.max)
    figures = (Figure(value, f"{value:#.2g}".rstrip(".")) for value in values)
    return (f"{table.label}: {table.unit}s", *figures)
