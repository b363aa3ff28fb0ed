"""How alike masks are: tables, pictures and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_prune.analysis.keys import place_of, short_names
from lightning_prune.analysis.similarity import METRICS, Similarity, SimilarityReport
from lightning_prune.files import replacing
from lightning_prune.report.charts import heat_map
from lightning_prune.report.files import Document, write
from lightning_prune.report.numbers import share_text
from lightning_prune.report.overlap_plots import pair_map
from lightning_prune.report.plots import Plot, document
from lightning_prune.report.tables import Cell, Column, Figure, Row, Table

__all__ = ["FEATURES", "similarity_document", "write_similarity"]

FEATURES = "similarity_features.parquet"
MOST_PAIRS = 3
"""Of more pairs, only the whole is printed, and the first are drawn block by block."""
MOST_ROWS = 40


def similarity_document(report: SimilarityReport) -> Document:
    """A report as it is printed and written: Markdown, CSV, JSON and a picture."""
    title = f"How alike the masks of {len(report.names)} models are"
    facts = _facts(report)
    whole = _whole(report)
    parts = [
        _part(report, level, pair) for pair in report.pairs for level in ("projection", "block")
    ]
    few = len(report.pairs) <= MOST_PAIRS
    return Document(
        "similarity",
        report.to_dict(),
        printed=[whole, *(t for t in parts if few and len(t.rows) <= MOST_ROWS), *facts],
        written=[f"# {title}", *facts, whole, *parts],
        rows=_rows(report),
        picture=document("similarity", title, facts, _plots(report)),
    )


def write_similarity(report: SimilarityReport, folder: str | Path) -> dict[str, str]:
    """Write a report, and its features if they were kept; returns paths by name.

    Raises:
        OSError: the folder cannot be written.
    """
    files = write(similarity_document(report), folder)
    if report.features:
        path = Path(folder) / FEATURES
        _write_features(report, path)
        files |= {FEATURES: str(path)}
    return files


def _write_features(report: SimilarityReport, path: Path) -> None:
    """A row for every feature of every matrix and pair, read by DuckDB and pandas."""
    import pyarrow as pa
    from pyarrow import parquet

    fields = [("a", pa.string()), ("b", pa.string()), ("matrix", pa.string())]
    fields += [("feature", pa.int32()), *((name, pa.float32()) for name in METRICS)]
    schema = pa.schema(fields)
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for (a, b, matrix), metrics in report.features.items():
            count = len(metrics["jaccard"])
            columns = {"a": [a] * count, "b": [b] * count, "matrix": [matrix] * count}
            values = {name: metrics.get(name, [None] * count) for name in METRICS}
            writer.write_table(pa.table(columns | {"feature": range(count)} | values, schema))


def _facts(report: SimilarityReport) -> list[str]:
    axis = {
        "auto": "rows of down_proj and of units, columns of all others",
        "rows": "rows",
        "columns": "columns",
    }[report.axis]
    return [
        "Jaccard: weights that stay in both, of those that stay in either; by chance: if as many "
        "of each matrix were chosen at random. Hamming: weights that stay in one alone, of all.",
        f"mean ± deviation: over features ({axis})",
        *report.notes,
    ]


# --- tables ---


def _header(first: Sequence[str]) -> list[str | Column]:
    return [
        *first,
        Column("Jaccard", "by chance"),
        "mean ± deviation",
        "cosine",
        "Hamming",
        "weights' cosine",
    ]


def _whole(report: SimilarityReport) -> Table:
    rows: list[Row] = [
        (
            s.a,
            s.b,
            *(_share(1 - stay / s.weights) for stay in (s.nonzero_a, s.nonzero_b)),
            *_cells(s),
        )
        for s in report.select("all")
    ]
    header = _header(["mask", "and", "zeros", "zeros of the other"])
    return Table("masks, two by two", header, rows, words=2)


def _part(report: SimilarityReport, level: str, pair: tuple[str, str]) -> Table:
    """A row for each block, or each projection."""
    found = report.select(level, pair)
    short = short_names([s.place for s in found]) if level == "projection" else {}
    rows: list[Row] = [(short.get(s.place, s.place), *_cells(s)) for s in found]
    return Table(f"{pair[0]} and {pair[1]} by {level}", _header([level]), rows)


def _cells(s: Similarity) -> list[Cell]:
    spread = f"{s.means['jaccard']:.1%} ± {s.deviations['jaccard']:.1%}"
    weights = "-" if s.value_cosine is None else f"{s.value_cosine:.3f}"
    return [
        Figure(s.jaccard, share_text(s.jaccard), share_text(s.jaccard_by_chance)),
        Figure(s.means["jaccard"], spread),
        Figure(s.cosine, f"{s.cosine:.3f}"),
        _share(s.hamming),
        Figure(s.value_cosine, weights),
    ]


def _share(value: float) -> Figure:
    return Figure(value, share_text(value))


def _rows(report: SimilarityReport) -> Table:
    """Every number of every place, for CSV."""
    records = report.records()
    rows: list[Row] = [
        [v if isinstance(v, str) else Figure(v, str(v)) for v in record.values()]
        for record in records
    ]
    return Table("", list(records[0]), rows)


# --- pictures ---


def _plots(report: SimilarityReport) -> list[Plot]:
    plots = []
    if len(report.names) > 2:
        values = {(s.a, s.b): s.jaccard for s in report.select("all")}
        plots.append(pair_map("Jaccard of masks", list(report.names), values, share_text))
    for pair in report.pairs[:MOST_PAIRS]:
        plots.append(_map(pair, report.select("matrix", pair)))
    return plots


def _map(pair: tuple[str, str], matrices: Sequence[Similarity]) -> Plot:
    """Jaccard by block and projection."""
    where = {place_of(s.place): s.jaccard for s in matrices}
    blocks = sorted({place[0] for place in where if place is not None})
    kinds = list(dict.fromkeys(place[1] for place in where if place is not None))
    short = short_names(kinds) if len(kinds) > 1 else {kind: kind for kind in kinds}
    rows: Mapping[str, list[float | None]] = {
        short[kind]: [where.get((block, kind)) for block in blocks] for kind in kinds
    }
    title = f"Jaccard of {pair[0]} and {pair[1]}, by block and projection"
    alt = ", ".join(
        f"{name} {sum(known) / len(known):.1%}"
        for name, values in rows.items()
        if (known := [value for value in values if value is not None])
    )
    return heat_map(title, f"{title}: mean {alt}", blocks, rows)
