"""Work on a block that several processes divide among themselves.

Axes: O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from lightning_prune import distributed
from lightning_prune.anatomy import Block, Site
from lightning_prune.evidence import for_rows
from lightning_prune.methods.base import Decision, Method
from lightning_prune.repair import Fixed, Repair, rows_of
from lightning_prune.sweep import Collected, Placement

__all__ = ["repaired", "scored"]

Steps = Iterator[tuple[Block, Mapping[str, torch.Tensor] | None]]


def repaired(
    repair: Repair,
    part: Block,
    keep: Mapping[str, torch.Tensor],
    results: Mapping[str, Any],
) -> Decision:
    """What becomes of the Linears of a part of a block.

    Args:
        repair: what is done.
        part: the block with these Linears, on the device.
        keep: by a Linear's name, True for its input features that stay.
        results: of the repair's evidence, by the name of the input.
    """
    decision = Decision(agreed=True)
    for site in part.sites:
        fixed = _repaired(repair, site, keep[site.name], results[site.table.reads])
        decision.weights[site.weight_name] = fixed.weight_OI
        if fixed.bias_O is not None:
            decision.weights[f"{site.name}.bias"] = fixed.bias_O
    return decision


def _repaired(repair: Repair, site: Site, keep_I: torch.Tensor, evidence: Any) -> Fixed:
    """A Linear after its repair, in its own type; each process has solved for some of the rows.

    Args:
        repair: what is done.
        site: the Linear, on the device.
        keep_I: True for its input features that stay.
        evidence: the result of the repair's evidence.
    """
    weight, bias = site.module.weight.detach(), site.module.bias
    keep_I = keep_I.to(weight.device)

    def fixed(rows: slice) -> Fixed:
        bias_O = None if bias is None else bias.detach()[rows].float()
        part = repair.fix(weight[rows].float(), bias_O, keep_I, for_rows(evidence, rows))
        new_O = None if part.bias_O is None else part.bias_O.to(weight.dtype)
        return Fixed(part.weight_OI.to(weight.dtype), new_O)

    count = distributed.world_size()
    shares = [rows_of(len(weight), part, count) for part in range(count)]
    solved = distributed.together(lambda: fixed(shares[distributed.rank()]))
    if count == 1:
        return solved
    new_OI = torch.empty_like(weight)
    new_O = None if solved.bias_O is None else weight.new_empty(len(weight))
    for owner, rows in enumerate(shares):
        mine = owner == distributed.rank()
        distributed.broadcast_(
            new_OI[rows].copy_(solved.weight_OI) if mine else new_OI[rows], owner
        )
        if new_O is not None and solved.bias_O is not None:
            distributed.broadcast_(new_O[rows].copy_(solved.bias_O) if mine else new_O[rows], owner)
    return Fixed(new_OI, new_O)


def scored(method: Method, placement: Placement, steps: Collected, known: Collection[int]) -> Steps:
    """Yield each block with its scores.

    Where scoring a block takes long, the evidence of as many blocks as there are processes is
    collected, one block's in each, and they are scored at the same time.

    Args:
        method: that scores.
        placement: of the blocks.
        steps: a sweep over the dense model.
        known: indices of blocks that need no scores; they come with None.
    """
    count = distributed.world_size() if method.divides_scoring else 1
    waiting: list[tuple[Block, dict[str, Any] | None]] = []
    for block, results in steps:
        if block.index in known:
            yield block, None
        elif count == 1:
            yield block, method.score(block, results)
        else:
            mine = len(waiting) == distributed.rank()
            waiting.append((block, dict(results) if mine else None))
            if len(waiting) == count:
                yield from _scored_at_once(method, placement, waiting)
                waiting = []
    yield from _scored_at_once(method, placement, waiting)


def _scored_at_once(
    method: Method, placement: Placement, waiting: list[tuple[Block, dict[str, Any] | None]]
) -> Steps:
    """Score one's own block, and tell the others."""

    def score() -> Mapping[str, torch.Tensor]:
        for block, results in waiting:
            if results is not None:
                with placement.block(block):
                    scores = method.score(block, results)
                return {name: score.cpu() for name, score in scores.items()}
        return {}

    scored = distributed.together(score) if waiting else {}
    for owner, (block, _) in enumerate(waiting):
        scores = distributed.given(scored, owner)
        yield block, {name: score.to(placement.device) for name, score in scores.items()}
