"""How a budget is shared among blocks, or among their sites.

Axes: O output features, I input features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch

from lightning_prune.allocation.counts import Pool, unit_counts
from lightning_prune.anatomy import Block, Site
from lightning_prune.evidence import InputEvidence

__all__ = ["Allocation", "Uniform"]


class Allocation(ABC):
    """From one budget for the whole model to one share for each block, or each site.

    Attributes:
        per: what gets a share of its own; "unit": nothing, single units are compared.
        evidence: what is collected on the dense model, in a forward pass of its own, to tell how
            important each block is; None: nothing is.
        windows: if not 0, importance is measured on the first so many calibration windows, as what
            a block's output loses when one of its sites is `damaged`.
        measure: how the importance of blocks is measured, by a name in `MEASURES`; None: it is not,
            or it is read from a file.
    """

    per: ClassVar[Literal["block", "site", "unit"]] = "block"
    evidence: ClassVar[type[InputEvidence] | None] = None
    windows: int = 0
    measure: str | None = None

    @property
    def calibrates(self) -> bool:
        """Whether it needs calibration text."""
        return self.evidence is not None or self.measure is not None

    def known_importance(self, blocks: Sequence[int], total: int) -> list[float]:
        """The importance of the blocks of these indices, of `total`, where nothing is measured."""
        return []

    def importance(self, block: Block, evidence: Mapping[str, Any]) -> float:
        """How important a block is; asked for with the results of `evidence`, by input name."""
        raise NotImplementedError(f"{type(self).__name__} asks for evidence and does not use it")

    def damaged(self, site: Site, evidence: Any) -> torch.Tensor:
        """A site's weight as a trial would leave it, (O, I), from the evidence of its input."""
        raise NotImplementedError(f"{type(self).__name__} asks for trials and makes none")

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
            scores: of the units of each pool, (U,).
            shares: the fraction of each pool that should go.
            target: how many parameters go from all pools together.
        """
        wished = [share * pool.units for share, pool in zip(shares, pools, strict=True)]
        return unit_counts(pools, wished, target)

    @property
    def identity(self) -> str:
        """What its shares depend on, besides the model and the calibration text."""
        return repr(self)

    def __repr__(self) -> str:
        """The call that makes it again; what a subclass stores under its own names."""
        said = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({said})"


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
        own = {b: [i for i, pool in enumerate(pools) if pool.block == b] for b in blocks}
        sizes = [sum(pools[i].parameters for i in own[b]) for b in blocks]
        limits = [sum(pools[i].highest * pools[i].size for i in own[b]) for b in blocks]
        for b, size, goal in zip(blocks, sizes, _level(sizes, limits, target), strict=True):
            wished = [goal / size * pools[i].units for i in own[b]]
            parts = [pools[i] for i in own[b]]
            for i, count in zip(own[b], unit_counts(parts, wished, goal), strict=True):
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
