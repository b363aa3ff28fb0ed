"""What is due in each round of pruning in rounds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from lightning_prune.allocation import Allocation, meet
from lightning_prune.anatomy import Anatomy
from lightning_prune.method import Method

__all__ = ["RoundBudget", "due"]


class RoundBudget:
    """How much of the dense model's units is gone after each round of a method that cuts units."""

    def __init__(self, anatomy: Anatomy, method: Method, rounds: int) -> None:
        self._whole, self._rounds = method, rounds
        self._sizes = self._left(anatomy)
        self._units = sum(self._sizes)
        self._removed = method.budget(anatomy) * self._units

    def method(self, anatomy: Anatomy, number: int) -> Method:
        """The method, asked for what is to be gone after a round of so much less."""
        step: Any = copy.copy(self._whole)
        due = self._removed * number / self._rounds - (self._units - sum(self._left(anatomy)))
        total = sum(parameter.numel() for parameter in anatomy.model.parameters())
        step.ratio, step.parameters = None, total - round(due) + step.new_biases(anatomy)
        if self._whole.effective_allocation.per == "block":
            step.allocation = self._allocation(number / self._rounds)
        if step.attention_ratio is not None:  # of the groups that are left
            part = step.attention_ratio / self._rounds
            step.attention_ratio = part / (1 - (number - 1) * part)
        return step

    def gone(self, anatomy: Anatomy) -> float:
        """The fraction of the units' parameters that is gone."""
        return 1 - sum(self._left(anatomy)) / self._units

    def _left(self, anatomy: Anatomy) -> list[int]:
        return [self._whole.size(block) for block in self._whole.blocks(anatomy)]

    def _allocation(self, part: float) -> Allocation:
        """A part of what the allocation gives the blocks of the dense model, less what is gone.

        So its limits are those of the whole budget, not of each round.
        """
        given, sizes, budget = self._whole.effective_allocation, self._sizes, self._removed

        def shares(
            self: Allocation, due: float, left: Sequence[int], importance: Sequence[float]
        ) -> list[float]:
            whole = given.shares(budget / sum(sizes), sizes, importance)
            wished = [
                (part * share * size - (size - now)) / max(now, 1)
                for share, size, now in zip(whole, sizes, left, strict=True)
            ]
            return meet(wished, due, left, highest=1.0)

        one, cls = copy.copy(given), type(given)
        one.__class__ = type(cls.__name__, (cls,), {"shares": shares})
        return one


def due(step: Method, anatomy: Anatomy, last: bool) -> bool:
    """Whether a round has a whole unit to remove.

    Raises:
        ValueError: it is the last one, and what is left of the budget cannot be removed.
    """
    try:
        step.check(anatomy)
    except ValueError:
        missing = step.budget(anatomy) * sum(step.size(block) for block in step.blocks(anatomy))
        smallest = sum(min(_unit_sizes(step, block)) for block in step.blocks(anatomy))
        if last and missing > smallest:
            raise
        return False
    return True


def _unit_sizes(step: Any, block: Any) -> list[int]:
    """Parameters of one unit of each kind that a block has."""
    return [pool.size for pool in step.pools([block])] or [0]
