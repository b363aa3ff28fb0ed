"""Shares by trial: sites whose pruning hurts their block most lose least.

Axes: O output features, I input features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from lightning_prune.allocation.base import Allocation
from lightning_prune.allocation.exact import meet
from lightning_prune.anatomy import Block, Site
from lightning_prune.evidence import InputNorm, Trial
from lightning_prune.selection import keep_per_row

__all__ = ["HalfMasked", "Sensitivity"]

TRIAL = 0.5
"""The share of every row that a trial sets to zero."""


class HalfMasked(Trial):
    """What a block loses when half of every row of one Linear, by |W|·||X||, is zero."""

    @property
    def inputs(self) -> InputNorm:
        """The norms of the Linear's input."""
        return InputNorm()

    def changed(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        """The weight with half of every row zero, (O, I)."""
        weight_OI = site.module.weight.detach()
        score_OI = weight_OI.abs().float() * evidence
        return weight_OI * keep_per_row(score_OI, TRIAL)


class Sensitivity(Allocation):
    """Every site its own share, by what a trial on the dense model costs its block.

    On a few calibration windows each site is masked alone, half of every row by |W|·||X||, and its
    block is run. With e the squared relative change of a token's output, mean over the tokens, and
    n the weights of the site, its share is c - ln(e / n) / steepness, where c meets the budget. If
    the error of one more weight grows exponentially with the share, that is the split at which the
    next weight costs the same everywhere.

    The trial looks at the block's output and not at the site's, because the two differ most where
    it matters: a key projection is small, and shared by a whole group of query heads. Costs, for
    those windows alone, a forward pass for each Linear of a block, and three more.

    Args:
        steepness: how fast errors are taken to grow: by e for every 1 / steepness removed. Smaller
            values make shares more unequal.
        windows: calibration windows that are tried on.
        max_share: the largest share of a site.

    Raises:
        ValueError: an argument is out of range.
    """

    per = "site"

    steepness: float = 6.0
    windows: int = 4
    max_share: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("steepness", self.steepness > 0, "it is above 0; 6 is usual")
        self.require("windows", self.windows >= 1, "it is 1 or more calibration windows")
        self.require("max_share", 0 < self.max_share < 1, "it is in (0, 1)")

    @property
    def evidence(self) -> HalfMasked:
        """A trial of every site."""
        return HalfMasked(windows=self.windows)

    def measured(self, block: Block, evidence: Mapping[str, float]) -> list[float]:
        """What the trial of each site costs the block."""
        return [evidence[site.name] for site in block.sites]

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """Less from where an error per weight is larger."""
        tiny = min((e for e in importance if e > 0), default=1.0)  # no error: as the best of them
        wished = [
            -math.log(max(e, tiny) / n) / self.steepness
            for e, n in zip(importance, sizes, strict=True)
        ]
        return meet(wished, budget, sizes, high=max(self.max_share, budget))
