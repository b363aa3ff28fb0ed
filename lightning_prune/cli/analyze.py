"""`lightning-prune analyze scores PLAN_A [PLAN_B]`: how alike scores are, as a table and files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_prune.analysis.scores import ALL, ScorePair, ScoreReport, compare_scores, short_names
from lightning_prune.cli.arguments import Parser, folder
from lightning_prune.files import write_json
from lightning_prune.report.scores_picture import NEEDS, can_draw, write_scores_pdf

__all__ = ["NAME", "print_scores", "run"]

NAME = "analyze"
MOST_ROWS = 100
"""Above this many, a table on the terminal has its last row only."""


def run(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(prog=f"lightning-prune {NAME}", description="Analyse what runs leave behind.")
    scores = parser.add_subparsers(dest="what", metavar="scores", required=True).add_parser(
        "scores",
        help="how alike the scores of two plans are, or those that one plan's were made from",
        description="Compare the scores of two plans, or those that the scores of one plan were "
        "put together from: Pearson, Spearman, cosine, what each would keep, distributions. "
        "Methods leave scores in their plan if made with keep_scores=True.",
    )
    scores.add_argument("a", metavar="PLAN_A", help="a plan's folder, or its plan.json")
    scores.add_argument("b", metavar="PLAN_B", nargs="?", help="another one's")
    scores.add_argument(
        "--out", type=folder, metavar="FOLDER", help="write scores.json and scores.pdf there"
    )
    given = parser.parse_args(arguments)
    report = compare_scores(given.a, given.b)
    print_scores(report, _write(report, given.out) if given.out else {})


def print_scores(
    report: ScoreReport, files: Mapping[str, str], console: Console | None = None
) -> None:
    """Print a table for each pair of scores, one of how scores are spread, and the files."""
    console = console or Console()
    for pair in report.pairs:
        console.print(_agreements(pair))
    if not report.pairs:
        line = "One set of scores of each kind; name a second plan to compare it with."
        console.print(Text(line), soft_wrap=True)
    console.print(_distributions(report))
    width = max(map(len, files), default=0)
    for name, path in files.items():
        console.print(Text.assemble((f"{name:{width}}", "bold"), f"  {path}"), soft_wrap=True)


def _write(report: ScoreReport, folder: Path) -> dict[str, str]:
    write_json(folder / "scores.json", report.to_dict())
    files = {"scores.json": str(folder / "scores.json")}
    if not can_draw():
        return files | {"scores.pdf": f"left out: {NEEDS}"}
    write_scores_pdf(folder / "scores.pdf", report)
    return files | {"scores.pdf": str(folder / "scores.pdf")}


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
