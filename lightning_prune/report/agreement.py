"""How well a scorer agrees with labels, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lightning_prune.evaluation.agreement import Agreement
from lightning_prune.report.files import Document
from lightning_prune.report.tables import Cell, Figure, Table

__all__ = ["agreement_document"]


def agreement_document(
    found: Agreement, scorer: Mapping[str, Any], settings: Mapping[str, Any]
) -> Document:
    """What is printed and written of a scorer.

    Args:
        found: its agreement.
        scorer: what `Scorer.describe` says.
        settings: which texts and labels.
    """
    figures = {
        "AUC": found.auc,
        "Spearman": found.spearman,
        "precision": found.precision,
        "recall": found.recall,
    }
    counts = {"texts": found.texts, "labelled": found.labelled, "flagged": found.flagged}
    note = (
        f"labelled: {settings['score']} is {found.cut} or more; flagged: the score is "
        f"{found.threshold} or more. It misses {scorer['misses']}."
    )
    cells: list[Cell] = [str(scorer["class"])]
    cells += [*map(_counted, counts.values()), *map(_figure, figures.values())]
    header = ("scorer", *counts, *figures)
    table = Table(f"Agreement with {settings['labelled']}", header, [cells], note)
    value = {"scorer": scorer, "settings": settings, "agreement": asdict(found)}
    lacking = int(settings["without_score"])
    parts: list[Table | str] = [table]
    parts += [f"records without a score, which are left out: {lacking:,}"] if lacking else []
    return Document("score", value, printed=parts, written=parts)


def _counted(count: int) -> Figure:
    return Figure(count, f"{count:,}")


def _figure(value: float | None) -> Figure:
    return Figure(value, "-" if value is None else f"{value:.3f}")
