"""What gets a share of its own in a search, and what is removed of it at each of some levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from lightning_prune.allocation import Allocation, PerBlock, PerPart, PerSite, meet
from lightning_prune.anatomy import Block
from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.plan import Plan

__all__ = ["Per", "Prunes", "Slot", "Slots", "share_grid"]

Per = Literal["block", "part", "site"]
Prunes = UnitPruning | WeightPruning

HIGHEST = 0.95
"""Of a slot, at most so much is removed."""


def share_grid(budget: float, step: float) -> list[float]:
    """Shares around the budget, itself among them, as far up as down, to where one side ends.

    Args:
        budget: the mean share.
        step: from one to the next, in parts of what is on the shorter side.
    """
    count, width = max(round(1 / step), 1), min(budget, 1 - budget)
    shares = [budget + width * k / count for k in range(-count, count + 1)]
    return [share for share in shares if 1e-9 < share <= max(HIGHEST, budget)]


@dataclass(frozen=True)
class Slot:
    """What gets a share of its own: a block, its attention or MLP, or one Linear.

    Attributes:
        name: for people.
        part: the block, with the sites that belong to it.
        size: what can be removed of it: weights, or the parameters of units.
        shares: by level, the share at which its candidate is made; 0 first.
        removed: by level, what goes; rising.
    """

    name: str
    part: Block
    size: int
    shares: tuple[float, ...]
    removed: tuple[float, ...]


class Slots:
    """The slots of a model for one method.

    Args:
        method: that is to get other shares.
        blocks: that it works on.
        per: what gets a share of its own: each "block"; each "part", its attention and its MLP; or
            each "site", a single Linear.
        shares: what there is to choose from, rising from above 0. Levels of a slot that remove the
            same, as of few GQA groups, are one.

    Attributes:
        each: the slots.

    Raises:
        ValueError: the method cannot be given such shares.
    """

    def __init__(
        self, method: Prunes, blocks: Sequence[Block], per: Per, shares: Sequence[float]
    ) -> None:
        if isinstance(method, UnitPruning) and per == "site":
            raise ValueError(
                f"per='site' gives single Linears shares, and the units of {type(method).__name__} "
                "reach over several; take 'block' or 'part'"
            )
        if isinstance(method, UnitPruning) and per == "part" and method.attention_ratio is not None:
            raise ValueError(
                f"attention_ratio={method.attention_ratio} says what goes of attention, which is "
                "what per='part' searches; leave one of them out"
            )
        self._method, self._blocks, self.per = method, blocks, per
        self.each = [
            self._slot(name, part, shares)
            for block in blocks
            for name, part in _parts(block, per)
            if method.size(part)
        ]
        self.with_shares([0.0] * len(self.each))

    def with_mean(self, budget: float) -> Prunes:
        """The method, with the same share for every block."""
        alike = PerBlock(fractions=[budget] * len(self._blocks))
        return replace(self._method, allocation=alike)

    @property
    def sizes(self) -> list[int]:
        """Of each slot."""
        return [slot.size for slot in self.each]

    def with_shares(self, shares: Sequence[float]) -> Prunes:
        """The method, with a share for each slot."""
        return replace(self._method, allocation=self._allocation(shares))

    def exact(self, shares: Sequence[float], budget: float) -> list[float]:
        """Shares like these, whose mean by size is the budget."""
        return [round(share, 6) for share in meet(shares, budget, self.sizes, high=HIGHEST)]

    def removed_by(self, plan: Plan) -> list[float]:
        """The share of each slot that a plan removes."""
        return [_removed_by(plan, slot.part) / slot.size for slot in self.each]

    def shares(self, levels: Sequence[int]) -> list[float]:
        """The share of each slot that goes at these levels."""
        return [s.removed[level] / s.size for s, level in zip(self.each, levels, strict=True)]

    def _slot(self, name: str, part: Block, shares: Sequence[float]) -> Slot:
        levels = {0.0: 0.0}
        for share in shares:
            levels.setdefault(_removed_at(self._method, part, share), share)
        return Slot(name, part, self._method.size(part), tuple(levels.values()), tuple(levels))

    def _allocation(self, shares: Sequence[float]) -> Allocation:
        given = dict(zip((slot.name for slot in self.each), shares, strict=True))
        if self.per == "block":
            return PerBlock(fractions=[given.get(_name(b), 0.0) for b in self._blocks])
        if isinstance(self._method, UnitPruning):
            of = {k: [s for n, s in given.items() if n.endswith(k)] for k in ("attention", "mlp")}
            return PerPart(**of)
        return PerSite(
            fractions=[
                given[name]
                for block in self._blocks
                for site in block.sites
                for name, part in _parts(block, self.per)
                if site in part.sites
            ]
        )


def _parts(block: Block, per: Per) -> Iterator[tuple[str, Block]]:
    """What gets a share of its own in a block."""
    if per == "block":
        yield _name(block), block
    elif per == "site":
        for site in block.sites:
            yield site.name, block.part([site])
    else:
        for name, part in block.parts().items():
            yield f"{_name(block)} {name}", part


def _name(block: Block) -> str:
    return f"block {block.index}"


def _removed_at(method: Prunes, part: Block, share: float) -> float:
    """What goes of a part of a block at a share."""
    if isinstance(method, WeightPruning):
        return share * method.size(part)
    # How many go does not depend on which: any scores will do.
    alike = {kind: torch.zeros(part.units(kind)) for kind in method.kinds_of(part)}
    kept = method.select(part, alike, share).kept
    return float(
        sum((part.units(k) - index_U.numel()) * part.unit_size(k) for k, index_U in kept.items())
    )


def _removed_by(plan: Plan, part: Block) -> float:
    """What a plan removes of a part of a block: weights, or parameters of units."""
    masks = [site.weight_name for site in part.sites if site.weight_name in plan.mask_names]
    zeros = sum(int((~plan.mask(name)).sum()) for name in masks)
    kept = [(kind, plan.blocks(kind).get(part.index)) for kind in plan.kinds]
    units = sum(k.removed * part.unit_size(kind) for kind, k in kept if k and part.units(kind))
    return float(zeros + units)
