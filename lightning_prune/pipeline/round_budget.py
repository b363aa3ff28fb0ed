"""What is due in each round of pruning in rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from lightning_prune.allocation import Allocation, Pool, meet
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.evidence import Evidence
from lightning_prune.methods.units import UnitPruning

__all__ = ["PartOfAllocation", "RoundBudget", "due"]


class PartOfAllocation(Allocation):
    """A part of what an allocation gives the blocks of the dense model, less what is gone.

    So its limits are those of the whole budget, not of each round.

    Args:
        whole: the allocation.
        part: of its shares, by now.
        budget: the fraction of the dense model's units that goes in all rounds.
        sizes: what each block of the dense model had.
    """

    whole: Allocation
    part: float
    budget: float
    sizes: Sequence[int]

    @property
    def evidence(self) -> Evidence | None:
        """What the allocation asks for."""
        return self.whole.evidence

    def known_importance(self, blocks: Sequence[int], total: int) -> list[float]:
        """What the allocation knows."""
        return self.whole.known_importance(blocks, total)

    def measured(self, block: Block, evidence: Mapping[str, Any]) -> list[float]:
        """What the allocation makes of the evidence."""
        return self.whole.measured(block, evidence)

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """So much of what is left of each block that its part of the whole is gone."""
        whole = self.whole.shares(self.budget, self.sizes, importance)
        wished = [
            (self.part * share * size - (size - left)) / max(left, 1)
            for share, size, left in zip(whole, self.sizes, sizes, strict=True)
        ]
        return meet(wished, budget, sizes, high=1.0)

    def unit_counts(
        self,
        pools: Sequence[Pool],
        scores: Sequence[torch.Tensor],
        shares: Sequence[float],
        target: float,
    ) -> list[int]:
        """As the allocation rounds shares to whole units."""
        return self.whole.unit_counts(pools, scores, shares, target)

    @property
    def identity(self) -> str:
        """With what the allocation depends on."""
        return f"{self!r} {self.whole.identity}"


class RoundBudget:
    """How much of the dense model's units is gone after each round of a method that cuts units.

    Args:
        anatomy: of the dense model.
        method: with its whole budget.
        rounds: how many.
    """

    def __init__(self, anatomy: Anatomy, method: UnitPruning, rounds: int) -> None:
        self._whole, self._rounds = method, rounds
        self._sizes = self._left(anatomy)
        self._units = sum(self._sizes)
        self._removed = method.budget(anatomy) * self._units

    def method(self, anatomy: Anatomy, number: int) -> UnitPruning:
        """The method, asked for what is to be gone after a round of so much less."""
        whole = self._whole
        due = self._removed * number / self._rounds - (self._units - sum(self._left(anatomy)))
        total = sum(parameter.numel() for parameter in anatomy.model.parameters())
        changed: dict[str, Any] = {
            "ratio": None,
            "parameters": total - round(due) + whole.new_biases(anatomy),
        }
        allocation = whole.effective_allocation
        if allocation.per == "block" and not whole.keeps_even:
            budget = self._removed / self._units
            part = number / self._rounds
            changed["allocation"] = PartOfAllocation(
                whole=allocation, part=part, budget=budget, sizes=self._sizes
            )
        if whole.attention_ratio is not None:  # of the groups that are left
            part = whole.attention_ratio / self._rounds
            changed["attention_ratio"] = part / (1 - (number - 1) * part)
        return replace(whole, **changed)

    def gone(self, anatomy: Anatomy) -> float:
        """The fraction of the units' parameters that is gone."""
        return 1 - sum(self._left(anatomy)) / self._units

    def _left(self, anatomy: Anatomy) -> list[int]:
        return [self._whole.size(block) for block in self._whole.blocks(anatomy)]


def due(step: UnitPruning, anatomy: Anatomy, last: bool) -> bool:
    """Whether a round has a whole unit to remove.

    Raises:
        ValueError: it is the last one, and what is left of the budget cannot be removed.
    """
    try:
        step.check(anatomy)
    except ValueError:
        missing = step.budget(anatomy) * sum(step.size(block) for block in step.blocks(anatomy))
        smallest = sum(
            min([pool.size for pool in step.pools([block])] or [0])
            for block in step.blocks(anatomy)
        )
        if last and missing > smallest:
            raise
        return False
    return True
