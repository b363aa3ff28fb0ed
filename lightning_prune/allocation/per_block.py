"""Shares that the user gives, to blocks or to single Linears.

Axes: U units of one pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from lightning_prune.allocation.base import Allocation
from lightning_prune.allocation.counts import Pool, counts_by_block

__all__ = ["PerBlock", "PerSite", "check_mean"]


class _Given(Allocation):
    """One given share for each of what `per` says."""

    of: ClassVar[str]

    fractions: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        inside = [0 <= fraction < 1 for fraction in self.fractions]
        self.require("fractions", bool(inside) and all(inside), "they are numbers in [0, 1)")

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The given fractions."""
        name = type(self).__name__
        if len(self.fractions) != len(sizes):
            raise ValueError(
                f"{name} has {len(self.fractions)} fractions for {len(sizes)} {self.of}s; give one "
                f"for each {self.of} that is pruned"
            )
        removed = sum(f * n for f, n in zip(self.fractions, sizes, strict=True))
        check_mean(name, removed / sum(sizes), budget)
        return list(self.fractions)


class PerBlock(_Given):
    """One given share for each block.

    Args:
        fractions: the fraction to remove from each block that is pruned, in their order. Their
            mean, by the blocks' sizes, is the budget.

    Raises:
        ValueError: a fraction is not in [0, 1); later, if there are not as many fractions as
            blocks, or their mean is not the budget.
    """

    of = "block"

    fractions: Sequence[float]

    def unit_counts(
        self,
        pools: Sequence[Pool],
        scores: Sequence[torch.Tensor],
        shares: Sequence[float],
        target: float,
    ) -> list[int]:
        """As many as make up the share of each block."""
        return counts_by_block(pools, shares, target)


class PerSite(_Given):
    """One given share for each Linear, for methods that set single weights to zero.

    Args:
        fractions: the fraction of zeros of each Linear that is pruned, block by block, in the order
            in which they run. Their mean, by the Linears' sizes, is the budget.

    Raises:
        ValueError: a fraction is not in [0, 1); later, if there are not as many fractions as
            Linears, or their mean is not the budget.
    """

    per = "site"
    of = "Linear"

    fractions: Sequence[float]


def check_mean(name: str, mean: float, budget: float) -> None:
    """Refuse given shares that remove something else than was asked for.

    Raises:
        ValueError: they do.
    """
    if abs(mean - budget) > 5e-4:
        raise ValueError(
            f"the fractions of {name} remove {mean:.4f} overall, and {budget:g} is asked for; make "
            "the two agree"
        )
