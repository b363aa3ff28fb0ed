"""Unit methods that score by products w·g, of each weight and a gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lightning_prune.anatomy import Block
from lightning_prune.evidence import Gradients
from lightning_prune.methods.units import UnitPruning
from lightning_prune.scores.products import Aggregate, score_units

__all__ = ["ProductPruning"]


class ProductPruning(UnitPruning):
    """Methods that aggregate the products of all weights of a unit; the evidence says of which g.

    Args:
        aggregate: of the products in a unit, "mean_abs": the magnitude of the mean; "snr": that
            over the standard deviation; "mean": the mean itself.
        trim: fraction of the products that is left out at either end.
        signed: False: of the magnitudes of the products.

    Raises:
        ValueError: an argument is out of range.
    """

    score_bytes = 10.5

    aggregate: Aggregate = "mean_abs"
    trim: float = 0.0
    signed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("trim", 0 <= self.trim < 0.5, "left out at either end, it is in [0, 0.5)")

    def score(self, block: Block, evidence: Mapping[str, Gradients]) -> dict[str, torch.Tensor]:
        """Aggregate the products of every unit of every kind asked for."""
        kinds = self.kinds_of(block)
        return score_units(block, kinds, evidence, self.aggregate, self.trim, self.signed)
