"""Units cut by scores that are known already, for trials of budgets and allocations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lightning_prune.anatomy import Block
from lightning_prune.checks import argument_defaults
from lightning_prune.methods.base import Scores
from lightning_prune.methods.units import UnitPruning

__all__ = ["KnownScores"]


class KnownScores(UnitPruning):
    """What a method does, without scoring the dense model again.

    Args:
        method: whose scores they are; the other arguments are as its own.
        scores: by block index and kind of unit, (U,).
    """

    method: UnitPruning
    scores: Scores

    @classmethod
    def of(cls, method: UnitPruning, scores: Scores) -> KnownScores:
        """The method's arguments, with its scores."""
        shared = {name: getattr(method, name) for name in argument_defaults(UnitPruning)}
        return cls(**shared, method=method, scores=scores)

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The scores of a block that were given; nothing is computed."""
        return dict(self.scores[block.index])

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the method that made the scores."""
        return self.method.arguments

    def __repr__(self) -> str:
        """The method's call."""
        return repr(self.method)
