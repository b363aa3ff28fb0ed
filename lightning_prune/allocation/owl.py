"""Outlier-weighted layerwise sparsity: blocks with more outliers lose less.

Source: Yin et al., "Outlier Weighed Layerwise Sparsity (OWL)", arXiv 2310.05175, equations 1 and 2.

Axes: O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lightning_prune.allocation.base import Allocation
from lightning_prune.allocation.exact import meet
from lightning_prune.anatomy import Block
from lightning_prune.evidence import InputNorm

__all__ = ["OWL", "outlier_ratio"]


def outlier_ratio(score: torch.Tensor, times: float) -> float:
    """Fraction of the scores that are more than `times` their mean."""
    return float((score > times * score.mean()).double().mean())


class OWL(Allocation):
    """Remove less from blocks in which more weights stand out.

    A weight stands out if |W_ij|·||X_j||, on the dense model, is more than `M` times the mean of
    its block. The fractions of such weights are scaled to a range of width 2 `lambda_`; a block is
    pruned by so much less than the budget as it lies above the mean of all. Costs one forward pass.

    Differs from the authors' code: blocks count by their size, a share below 0 gives what it lacks
    to the others (theirs sets 0.01 and misses the budget), and equal blocks get equal shares
    (theirs divides by zero).

    Args:
        M: how many times the mean is an outlier.
        lambda_: half the largest difference of two shares.

    Raises:
        ValueError: M is not positive, or lambda_ is not in [0, 0.5).
    """

    M: float = 5.0
    lambda_: float = 0.08

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("M", self.M > 0, "it is above 0; 5 is usual")
        self.require("lambda_", 0 <= self.lambda_ < 0.5, "it is in [0, 0.5); 0.08 is usual")

    @property
    def evidence(self) -> InputNorm:
        """The norms of all inputs."""
        return InputNorm()

    def measured(self, block: Block, evidence: Mapping[str, torch.Tensor]) -> list[float]:
        """The fraction of outliers in a block."""
        scores = []
        for site in block.sites:
            weight_OI = site.module.weight.detach()
            norm_I = evidence[site.table.reads]
            scores.append((weight_OI.abs().float() * norm_I).flatten())
        return [outlier_ratio(torch.cat(scores), self.M)]

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The budget, less what a block's outliers are above the mean."""
        lowest, highest = min(importance), max(importance)
        width = (highest - lowest) or 1.0
        scaled = [2 * self.lambda_ * (value - lowest) / width for value in importance]
        mean = sum(x * n for x, n in zip(scaled, sizes, strict=True)) / sum(sizes)
        return meet([budget - (x - mean) for x in scaled], budget, sizes)
