"""How alike scores are, and how they are spread, as tables for the terminal."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_prune.analysis.scores import ALL, ScorePair, ScoreReport, short_names

__all__ = ["print_scores"]

MOST_ROWS = 100
"""Above this many, a table on the terminal has its last row only."""


def print_scores(report: ScoreReport, console: Console | None = None) -> None:
    """Print a table for each pair of scores, and one of how scores are spread."""
    console = console or Console()
    for pair in report.pairs:
        console.print(_agreements(pair))
    if not report.pairs:
        line = "One set of scores of each kind; name a second plan to compare it with."
        console.print(Text(line), soft_wrap=True)
    console.print(_distributions(report))


def _agreements(pair: ScorePair) -> Table:
    table = _table(f"{pair.a.label} and {pair.b.label}\nscores of {pair.a.unit}s")
    overlaps = pair.agreements[ALL].overlap is not None
    heads = ["Pearson", "Spearman", "cosine"]
    heads += ["kept in\ncommon", "by\nchance", "removed\nin common"] * overlaps
    table.add_column("weight" if pair.a.unit == "weight" else "block", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    keys = list(pair.agreements)
    names = short_names(keys)
    for key in keys if len(keys) <= MOST_ROWS else [ALL]:
        found = pair.agreements[key]
        cells = [_number(value) for value in (found.pearson, found.spearman, found.cosine)]
        if overlaps and (overlap := found.overlap):
            shares = (overlap.jaccard, overlap.jaccard_by_chance, overlap.removed_jaccard)
            cells += [_percent(share) for share in shares]
        if key == ALL:
            table.add_section()
        table.add_row(names[key], *cells, style="bold" if key == ALL else "")
    return table


def _distributions(report: ScoreReport) -> Table:
    table = _table("distributions, all blocks together")
    table.add_column("scores", overflow="fold")
    for head in ("mean", "std", "min", "5%", "median", "95%", "max"):
        table.add_column(head, justify="right", no_wrap=True)
    for scores, found in report.distributions:
        one = found[ALL]
        middle = (one.quantiles[0.05], one.quantiles[0.5], one.quantiles[0.95])
        values = (one.mean, one.std, one.min, *middle, one.max)
        name = f"{scores.label}: {scores.unit}s"
        table.add_row(Text(name), *(f"{v:#.2g}".rstrip(".") for v in values))
    return table


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        title=Text(title),
        title_style="bold",
        title_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
