"""How a budget is shared among blocks, or among their sites.

Axes: U units of one pool.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch

from lightning_prune.allocation.counts import Pool, unit_counts
from lightning_prune.anatomy import Block
from lightning_prune.checks import Configured
from lightning_prune.evidence import Evidence

__all__ = ["Allocation", "OverUnits", "Uniform"]


class Allocation(Configured, ABC):
    """From one budget for the whole model to one share for each block, or each site.

    Attributes:
        per: what gets a share of its own; "unit": nothing, single units are compared.
        evidence: what is collected of the dense model, in a sweep of its own, to tell how important
            each block, or site, is; None: nothing is.
    """

    per: ClassVar[Literal["block", "site", "unit"]] = "block"

    @property
    def evidence(self) -> Evidence | None:
        """What is collected of the dense model before the budget is shared."""
        return None

    def known_importance(self, blocks: Sequence[int], total: int) -> list[float]:
        """The importance of the blocks of these indices, of `total`, where nothing is measured."""
        return []

    def measured(self, block: Block, evidence: Mapping[str, Any]) -> list[float]:
        """How important a block is, or with per="site" each of its sites.

        Args:
            block: with its sites.
            evidence: what was collected of it.
        """
        raise NotImplementedError(f"{type(self).__name__} asks for evidence and does not use it")

    @abstractmethod
    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The fraction to remove from each block, or from each site of each block.

        Args:
            budget: fraction to remove overall.
            sizes: what each has of it: parameters or units.
            importance: of each; empty without evidence.

        Raises:
            ValueError: the budget cannot be shared among so many.
        """

    def unit_counts(
        self,
        pools: Sequence[Pool],
        scores: Sequence[torch.Tensor],
        shares: Sequence[float],
        target: float,
    ) -> list[int]:
        """How many units of each pool go, so that `target` parameters go, within one unit.

        Args:
            pools: the units of each kind in each block.
            scores: by pool, of its units (U,).
            shares: the fraction of each pool that should go.
            target: how many parameters go from all pools together.
        """
        wished = [share * pool.units for share, pool in zip(shares, pools, strict=True)]
        return unit_counts(pools, wished, target)

    @property
    def identity(self) -> str:
        """What its shares depend on, besides the model and the calibration text."""
        return repr(self)


class OverUnits(Allocation):
    """Allocations that say in `unit_counts` alone how the units of all blocks share the budget."""

    per = "unit"

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The budget for all."""
        return [budget] * len(sizes)


class Uniform(Allocation):
    """The same fraction from every block, so that equal blocks stay equal.

    Where whole units do not make up the budget, blocks are not made unequal to meet it: it is then
    met within one unit a block.
    """

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The budget, once a block."""
        return [budget] * len(sizes)

    def unit_counts(
        self,
        pools: Sequence[Pool],
        scores: Sequence[torch.Tensor],
        shares: Sequence[float],
        target: float,
    ) -> list[int]:
        """As many as the share of each block asks for, in its kinds together.

        Where a block has less to give, the others, alike, give more.
        """
        counts = [0] * len(pools)
        blocks = list(dict.fromkeys(pool.block for pool in pools))
        members = {b: [i for i, pool in enumerate(pools) if pool.block == b] for b in blocks}
        sizes = [sum(pools[i].parameters for i in members[b]) for b in blocks]
        limits = [sum(pools[i].most * pools[i].size for i in members[b]) for b in blocks]
        for b, size, goal in zip(blocks, sizes, _level(sizes, limits, target), strict=True):
            wished = [goal / size * pools[i].units for i in members[b]]
            parts = [pools[i] for i in members[b]]
            for i, count in zip(members[b], unit_counts(parts, wished, goal), strict=True):
                counts[i] = count
        return counts


def _level(sizes: Sequence[int], limits: Sequence[int], target: float) -> list[float]:
    """What each block gives so that all give the same fraction, except those at their limit."""
    goals = [0.0] * len(sizes)
    open_ = set(range(len(sizes)))
    while open_:
        fraction = target / sum(sizes[i] for i in open_)
        full = {i for i in open_ if fraction * sizes[i] > limits[i]}
        if not full:
            return [fraction * s if i in open_ else goals[i] for i, s in enumerate(sizes)]
        for i in full:
            goals[i] = float(limits[i])
            target -= limits[i]
        open_ -= full
    return goals
