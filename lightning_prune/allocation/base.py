"""How a budget is shared among blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

__all__ = ["Allocation", "Uniform"]


class Allocation(ABC):
    """From one budget for the whole model to one share for each block."""

    @abstractmethod
    def shares(self, budget: float, sizes: Sequence[int]) -> list[float]:
        """The fraction to remove from each block.

        Args:
            budget: fraction to remove overall.
            sizes: what each block has of it: parameters or units.
        """


class Uniform(Allocation):
    """The same fraction from every block, so that equal blocks stay equal."""

    def shares(self, budget: float, sizes: Sequence[int]) -> list[float]:
        """The budget, once a block."""
        return [budget] * len(sizes)

    def __repr__(self) -> str:
        """The call that makes it again."""
        return "Uniform()"
