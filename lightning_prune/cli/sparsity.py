"""`lightning-prune sparsity PATH`: the zeros of a saved model, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_prune.analysis.zeros import (
    PATTERNS,
    MatrixZeros,
    SparsityReport,
    fraction,
    sparsity,
)
from lightning_prune.cli.arguments import Parser
from lightning_prune.files import write_json

__all__ = ["NAME", "print_sparsity", "run"]

NAME = "sparsity"


def run(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog=f"lightning-prune {NAME}",
        description="Count the zeros of a saved model, without loading it: per block, per kind of "
        "matrix, per row, and by N:M pattern (N kept of M consecutive inputs).",
    )
    parser.add_argument("path", help="a Hugging Face folder with safetensors, or one such file")
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file")
    parser.add_argument(
        "--pattern",
        metavar="N:M",
        action="append",
        help=f"a pattern to look for, repeatable; default: {', '.join(PATTERNS)}",
    )
    given = parser.parse_args(arguments)
    report = sparsity(given.path, given.pattern or PATTERNS)
    print_sparsity(report)
    if given.json:
        write_json(given.json, report.to_dict())
        Console().print(Text(given.json), soft_wrap=True)


def print_sparsity(report: SparsityReport, console: Console | None = None) -> None:
    """Print two tables (by block, by kind) and what they add up to."""
    console = console or Console()
    if report.matrices:
        console.print(_by_block(report))
        console.print(_by_kind(report))
    for line in _conclusions(report):
        console.print(Text(line), soft_wrap=True)


def _by_block(report: SparsityReport) -> Table:
    table = _table(f"{report.path}\nzeros by block and kind of matrix")
    table.add_column("block", justify="right")
    for kind in report.kinds:
        table.add_column(_short(kind, report.kinds), justify="right", no_wrap=True)
    table.add_column("all", justify="right", style="bold")
    for block in report.blocks:
        cells = [_share(report.select(block, kind)) for kind in report.kinds]
        table.add_row(str(block), *cells, _share(report.select(block)))
    cells = [_share(report.select(kind=kind)) for kind in report.kinds]
    table.add_section()
    table.add_row("all", *cells, _share(report.matrices), style="bold")
    return table


def _by_kind(report: SparsityReport) -> Table:
    table = _table("zeros in rows, and groups that hold to a pattern")
    table.add_column("matrix", no_wrap=True)
    for name in ("count", "zeros", "row min", "row max", *report.searched):
        table.add_column(name, justify="right", no_wrap=True)
    for kind in report.kinds:
        found = report.select(kind=kind)
        one = SparsityReport("", found, 0, 0, searched=report.searched)
        table.add_row(
            kind,
            str(len(found)),
            _share(found),
            percent(min(m.row_min for m in found)),
            percent(max(m.row_max for m in found)),
            *(percent(one.compliance(pattern)) for pattern in report.searched),
        )
    return table


def _conclusions(report: SparsityReport) -> list[str]:
    weights = sum(m.weights for m in report.matrices)
    zeros = sum(m.zeros for m in report.matrices)
    lines = [
        f"blocks' Linears   {percent(report.linear_sparsity)} zero  "
        f"({zeros:,} of {weights:,} weights in {len(report.matrices)} matrices)",
        f"all parameters    {percent(report.total_sparsity)} zero  "
        f"({report.zeros:,} of {report.parameters:,}, as stored)",
        f"pattern           {_pattern(report)}",
    ]
    if report.packed:
        lines.append(
            f"not counted       {report.packed:,} packed integers: their zeros mean nothing"
        )
    if report.plan is not None:
        lines.append(f"plan              {_plan(report)}")
    return lines


def _pattern(report: SparsityReport) -> str:
    if report.pattern is not None:
        return f"{report.pattern} everywhere"
    whole = {
        pattern: sum(m.patterns.get(pattern) == 1 for m in report.matrices)
        for pattern in report.searched
    }
    some = [f"{p} in {n} of {len(report.matrices)} matrices" for p, n in whole.items() if n]
    return ", ".join(some) or f"none of {', '.join(report.searched)}"


def _plan(report: SparsityReport) -> str:
    plan = report.plan
    assert plan is not None
    if plan.problem:
        return f"cannot be compared: {plan.problem}"
    if not plan.agrees:
        return (
            f"DISAGREES: {plan.removed_nonzero:,} weights that it removes are not zero "
            f"({plan.matrices} masks)"
        )
    more = f"; {plan.kept_zero:,} more are zero" if plan.kept_zero else ""
    return f"agrees: all that its {plan.matrices} masks remove is zero{more}"


def _short(kind: str, kinds: list[str]) -> str:
    """The last part of a kind's name, if that tells it apart; it must fit over a percentage."""
    last = kind.rpartition(".")[2]
    return last if [k.rpartition(".")[2] for k in kinds].count(last) == 1 else kind


def _share(matrices: list[MatrixZeros]) -> str:
    return percent(fraction(matrices)) if matrices else "-"


def percent(share: float) -> str:
    """A percentage that says 0% and 100% only of none and all."""
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{share:.1%}"


def _table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        title=Text(title),
        title_style="bold",
        title_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
