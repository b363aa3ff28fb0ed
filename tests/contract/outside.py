"""A method of weights and a method of units that the package knows nothing of.

As somebody would write them in a project of their own; the whole contract runs over them too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lightning_prune.anatomy import Block, Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import InputMean, InputNorm
from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.scores.wanda import unit_mean


class Louder(PruningCallback, WeightPruning):
    """Zero the weights of lowest |W_ij| · ||X_j||^power."""

    evidence = InputNorm()
    power: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("power", self.power >= 0, "it is 0 or more")

    def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        return site.module.weight.detach().abs() * evidence**self.power


class Quietest(PruningCallback, UnitPruning):
    """Remove the units whose inputs are smallest on average."""

    evidence = InputMean()

    def score(self, block: Block, evidence: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            kind: unit_mean(block, kind, evidence[block.reader(kind).site.table.reads].abs())
            for kind in self.kinds_of(block)
        }
