"""Units cut by scores that are known already, for trials of other budgets and allocations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lightning_prune.allocation import Allocation
from lightning_prune.anatomy import Block
from lightning_prune.checks import argument_defaults
from lightning_prune.methods.base import Scores
from lightning_prune.methods.units import UnitPruning

__all__ = ["KnownScores"]


class KnownScores(UnitPruning):
    """What a method does with another allocation, without scoring the dense model again.

    Args:
        method: whose scores they are.
        scores: by block index and kind of unit, (U,).
    """

    method: UnitPruning
    scores: Scores

    @classmethod
    def of(cls, method: UnitPruning, scores: Scores, allocation: Allocation) -> KnownScores:
        """The method's arguments, with its scores and another allocation."""
        shared = {name: getattr(method, name) for name in argument_defaults(UnitPruning)}
        return cls(**shared | {"allocation": allocation, "method": method, "scores": scores})

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Those that are known."""
        return dict(self.scores[block.index])

    def __repr__(self) -> str:
        """The method and the allocation."""
        return f"{self.method!r} with {self.allocation!r}"
