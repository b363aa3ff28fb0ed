"""How alike circuits are: tables, pictures and a page."""

from __future__ import annotations

import math
from html import escape

from lightning_prune.analysis.circuits import CircuitReport, MemberOverlap
from lightning_prune.analysis.keys import short_names
from lightning_prune.analysis.statistics import SAMPLE
from lightning_prune.report.files import Document
from lightning_prune.report.numbers import share_text
from lightning_prune.report.overlap_plots import pair_map, venn
from lightning_prune.report.page import page
from lightning_prune.report.plots import Plot, document, figures
from lightning_prune.report.tables import Cell, Column, Figure, Row, Table, as_html

__all__ = ["overlaps_document"]

MOST_ROWS = 40
"""Of more blocks or matrices, the table stands in files alone."""
CIRCLES = "The circles are of one size: their areas say nothing of the counts."


def overlaps_document(report: CircuitReport) -> Document:
    """A report as it is printed and written: Markdown, CSV, JSON, a picture and a page."""
    title = f"How alike {len(report.names)} {report.what}s of {report.kind}s are"
    facts = _facts(report)
    pairs, regions, blocks = _pairs(report), _regions(report), _blocks(report)
    tables = [pairs, *regions, blocks]
    plots = _plots(report)
    has_circles = [CIRCLES] if regions else []
    body = [
        ("", "".join(f"<p>{escape(fact)}</p>" for fact in facts)),
        ("Pictures", "".join(f"<p>{words}</p>" for words in has_circles) + figures(plots)),
        *((table.title, as_html(table)) for table in tables),
    ]
    few = blocks if len(blocks.rows) <= MOST_ROWS else f"{blocks.title}: in the files of --out"
    return Document(
        "circuits",
        report.to_dict(),
        printed=[pairs, *regions, few, *facts],
        written=[f"# {title}", *facts, *tables],
        rows=_rows(report),
        picture=document("circuits", title, [*facts, *has_circles], plots),
        texts={"circuits.html": page(title, "circuits", body)},
    )


def _facts(report: CircuitReport) -> list[str]:
    parts = "" if report.parts is None else f" out of {report.parts:,} {report.kind}s"
    chance = (
        f"by chance: the mean of sets of these sizes drawn at random{parts}"
        if report.parts is not None
        else "by chance: unknown, as the circuits do not say out of how many parts they are"
    )
    facts = [f"Jaccard: members of both, of the members of either; {chance}"]
    if report.correlations:
        sample = f", of {SAMPLE:,} drawn at random" if (report.parts or 0) > SAMPLE else ""
        facts.append(f"Spearman: correlation of the ranks of all {report.kind}s{sample}")
    return facts


# --- tables ---


def _pairs(report: CircuitReport) -> Table:
    """A row for every two: correlation, and Jaccard for each count."""
    header: list[str | Column] = [report.what, "and"]
    header += ["Spearman"] if report.correlations else []
    header += [Column(f"Jaccard{_of(report, overlap)}", "by chance") for overlap in report.members]
    rows: list[Row] = []
    for i, pair in enumerate(report.members[0].pairs):
        cells: list[Cell] = [pair.a, pair.b]
        if report.correlations:
            correlation = report.correlations[pair.a, pair.b]
            cells.append(Figure(correlation, _correlation(correlation)))
        for overlap in report.members:
            found = overlap.pairs[i]
            chance = found.jaccard_by_chance
            expected = "-" if chance is None else share_text(chance)
            cells.append(Figure(found.jaccard, share_text(found.jaccard), expected))
        rows.append(cells)
    return Table(f"{report.what}s of {report.kind}s, two by two", header, rows, words=2)


def _regions(report: CircuitReport) -> list[Table]:
    """Who has how many alone, and together; of more than three circuits nothing."""
    regions = list(report.members[0].regions)
    if not regions:
        return []
    header = [
        "in",
        *(f"{report.kind}s{_of(report, overlap)}" for overlap in report.members),
    ]
    rows: list[Row] = []
    for names in regions:
        alone = " alone" if len(names) < len(report.names) else ""
        counts = [overlap.regions[names] for overlap in report.members]
        rows.append((" and ".join(names) + alone, *(Figure(n, f"{n:,}") for n in counts)))
    return [Table("who has them", header, rows)]


def _blocks(report: CircuitReport) -> Table:
    """Members by block or matrix, of the highest count."""
    overlap = report.members[-1]
    place = "weight" if report.kind == "weight" else "block"
    short = short_names(list(overlap.blocks))
    rows: list[Row] = [
        (short[key], *(Figure(n, f"{n:,}") for n in (block.shared, *block.sizes.values())))
        for key, block in overlap.blocks.items()
    ]
    title = f"members by {place}{_of(report, overlap, ', ')}"
    header = (place, "in all", *report.names)
    return Table(title, header, rows, compared=len(report.names), of=report.what)


def _rows(report: CircuitReport) -> Table:
    """Every number of every two, for CSV."""
    header = ["count", "a", "b", "size_a", "size_b", "both", "jaccard", "jaccard_by_chance"]
    rows: list[Row] = []
    for overlap in report.members:
        for pair in overlap.pairs:
            numbers = [pair.size_a, pair.size_b, pair.both, pair.jaccard, pair.jaccard_by_chance]
            correlation = report.correlations.get((pair.a, pair.b), math.nan)
            numbers.append(None if math.isnan(correlation) else correlation)
            first = Figure(overlap.count, str(overlap.count))
            rows.append((first, pair.a, pair.b, *(Figure(n, str(n)) for n in numbers)))
    return Table("", [*header, "spearman"], rows)


def _of(report: CircuitReport, overlap: MemberOverlap, before: str = " of ") -> str:
    if overlap.count is None:
        return ""
    return f"{before}the {'lowest' if report.correlations else 'first'} {overlap.count:,}"


def _correlation(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value, 3) or 0.0:.3f}"


# --- pictures ---


def _plots(report: CircuitReport) -> list[Plot]:
    plots = []
    if report.correlations:
        title = "Spearman correlation of the ranks"
        plots.append(pair_map(title, report.names, report.correlations, _correlation))
    for overlap in report.members:
        values = {(pair.a, pair.b): pair.jaccard for pair in overlap.pairs}
        title = f"Jaccard{_of(report, overlap)}"
        plots.append(pair_map(title, report.names, values, share_text))
        if overlap.regions:
            title = f"{report.kind}s{_of(report, overlap)} in one or several".capitalize()
            plots.append(venn(title, overlap.sizes, overlap.regions))
    return plots
