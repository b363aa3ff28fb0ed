"""The zeros of a saved model: tables by block and by kind of matrix, and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_prune.analysis.zeros import MatrixZeros, SparsityReport, fraction
from lightning_prune.report.files import Document
from lightning_prune.report.numbers import share_text
from lightning_prune.report.tables import Figure, Row, Table

__all__ = ["zeros_document"]


def zeros_document(report: SparsityReport) -> Document:
    """Zeros as they are printed, and written as JSON."""
    tables = [_by_block(report), _by_kind(report)] if report.matrices else []
    return Document("sparsity", report.to_dict(), printed=[*tables, *_conclusions(report)])


def _by_block(report: SparsityReport) -> Table:
    rows: list[Row] = [
        (str(block), *_shares(report, block), _share(report.select(block)))
        for block in report.blocks
    ]
    rows.append(("all", *_shares(report), _share(report.matrices)))
    header = ("block", *(_short(kind, report.kinds) for kind in report.kinds), "all")
    title = f"{report.path}\nzeros by block and kind of matrix"
    return Table(title, header, rows, words=0, total=True)


def _by_kind(report: SparsityReport) -> Table:
    rows: list[Row] = []
    for kind in report.kinds:
        matrices = report.select(kind=kind)
        alone = SparsityReport("", matrices, 0, 0, searched=report.searched)
        shares = (
            min(m.row_min for m in matrices),
            max(m.row_max for m in matrices),
            *(alone.compliance(pattern) for pattern in report.searched),
        )
        figures = (Figure(share, share_text(share)) for share in shares)
        rows.append((kind, str(len(matrices)), _share(matrices), *figures))
    header = ("matrix", "count", "zeros", "row min", "row max", *report.searched)
    return Table("zeros in rows, and groups that hold to a pattern", header, rows)


def _conclusions(report: SparsityReport) -> list[str]:
    weights = sum(m.weights for m in report.matrices)
    zeros = sum(m.zeros for m in report.matrices)
    lines = [
        f"blocks' Linears   {share_text(report.linear_sparsity)} zero  "
        f"({zeros:,} of {weights:,} weights in {len(report.matrices)} matrices)",
        f"all parameters    {share_text(report.total_sparsity)} zero  "
        f"({report.zeros:,} of {report.parameters:,}, as stored)",
        f"pattern           {_pattern(report)}",
    ]
    if strange := [m.name for m in report.matrices if not math.isfinite(m.norm)]:
        lines.append(
            f"not finite        weights of {len(strange)} matrices are infinite or not a number: "
            f"{', '.join(strange[:3])}{', …' * (len(strange) > 3)}"
        )
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


def _short(kind: str, kinds: Sequence[str]) -> str:
    """The last part of a kind's name, if that tells it apart; it must fit over a percentage."""
    last = kind.rpartition(".")[2]
    return last if [k.rpartition(".")[2] for k in kinds].count(last) == 1 else kind


def _shares(report: SparsityReport, block: int | None = None) -> list[Figure]:
    return [_share(report.select(block, kind)) for kind in report.kinds]


def _share(matrices: Sequence[MatrixZeros]) -> Figure:
    if not matrices:
        return Figure(None, "-")
    share = fraction(list(matrices))
    return Figure(share, share_text(share))
