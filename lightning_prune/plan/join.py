"""Several plans, made one after the other on one model, as one.

Axes: U units of one block.
"""

from __future__ import annotations

from dataclasses import replace

from lightning_prune.plan.numbering import Kept, left_over, numbered_before
from lightning_prune.plan.plan import Plan

__all__ = ["joined"]


def joined(first: Plan, second: Plan) -> Plan:
    """The decisions of a plan, and of a second one, which was made on what the first left.

    Where both have a mask for a weight, both hold; units that the second keeps are counted among
    those that the first kept, and blocks numbered as before the first took some out. (Masks and
    corrected weights are named as in the model that is left.)

    Raises:
        ValueError: the second does not follow: it cuts a model that is masked already, or has a
            mask of another shape or another number of units than the first left.
    """
    gone, second = second.dropped, _renumbered(second, first)
    if first._masks and second._kept:
        raise ValueError(
            "a plan that cuts units cannot follow one that masks weights: the masks would no "
            "longer fit. Cut first, then mask."
        )
    both = Plan(
        provenance={"steps": [*first.steps, *second.steps]},
        corrected=left_over(first.corrected, gone) | second.corrected,
        _masks=first._masks | second._masks,
        _kept={kind: dict(blocks) for kind, blocks in first._kept.items()},
        _scores=second._scores | first._scores,  # of units as they were numbered first
    )
    for name in first._masks.keys() & second._masks.keys():
        (ours_P, shape), (theirs_P, their_shape) = first._masks[name], second._masks[name]
        if shape != their_shape:
            raise ValueError(
                f"the two masks for {name!r} have shapes {tuple(shape)} and "
                f"{tuple(their_shape)}. Were the plans made for the same model?"
            )
        both._masks[name] = (ours_P & theirs_P, shape)
    for kind, blocks in second._kept.items():
        for block, kept in blocks.items():
            before = first._kept.get(kind, {}).get(block)
            units = f"{kind} units in block {block}"
            both._kept.setdefault(kind, {})[block] = _left(before, kept, units)
    return both


def _renumbered(plan: Plan, first: Plan) -> Plan:
    """The same decisions, blocks numbered as before `first` took some of them out."""
    gone = first.dropped
    kept = {
        kind: {numbered_before(block, gone): kept for block, kept in blocks.items()}
        for kind, blocks in plan._kept.items()
    }
    scores = {
        (kind, str(numbered_before(int(key), gone)) if key.isdigit() else key): score
        for (kind, key), score in plan._scores.items()
    }
    return replace(plan, _kept=kept, _scores=scores)


def _left(first: Kept | None, second: Kept, units: str) -> Kept:
    """What stays when a second plan keeps some of the units that the first one left."""
    if first is None:
        return second
    if first.index_U.numel() != second.total:
        raise ValueError(
            f"the first plan leaves {first.index_U.numel()} {units}, and the second one is about "
            f"{second.total}. Were they made one after the other?"
        )
    return Kept(first.index_U[second.index_U], first.total)
