"""Shares that the user gives."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_prune.allocation.base import Allocation

__all__ = ["PerBlock"]


class PerBlock(Allocation):
    """One given share for each block.

    Args:
        fractions: the fraction to remove from each block that is pruned, in their order. Their
            mean, by the blocks' sizes, is the budget.

    Raises:
        ValueError: a fraction is not in [0, 1); later, if there are not as many fractions as
            blocks, or their mean is not the budget.
    """

    fractions: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        inside = [0 <= fraction < 1 for fraction in self.fractions]
        self.require("fractions", bool(inside) and all(inside), "they are numbers in [0, 1)")

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The given fractions."""
        if len(self.fractions) != len(sizes):
            raise ValueError(
                f"PerBlock has {len(self.fractions)} fractions for {len(sizes)} blocks; give one "
                "for each block that is pruned"
            )
        mean = sum(f * n for f, n in zip(self.fractions, sizes, strict=True)) / sum(sizes)
        if abs(mean - budget) > 5e-4:
            raise ValueError(
                f"the fractions of PerBlock remove {mean:.4f} overall, and {budget:g} is asked "
                "for; make the two agree"
            )
        return list(self.fractions)
