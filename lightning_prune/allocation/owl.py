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

    A weight stands out if |W_ij|·||X_j||, on the dense model, is more than `times` the mean of its
    block. The fractions of such weights are scaled to a range of width 2 `spread`; a block is
    pruned by so much less than the budget as it lies above the mean of all. Costs one forward pass.

    Differs from the authors' code: blocks count by their size, a share below 0 gives what it lacks
    to the others (theirs sets 0.01 and misses the budget), and equal blocks get equal shares
    (theirs divides by zero).

    Args:
        times: how many times the mean is an outlier; M of the paper.
        spread: half the largest difference of two shares; lambda of the paper.

    Raises:
        ValueError: times is not positive, or spread is not in [0, 0.5).
    """

    evidence = InputNorm

    def __init__(self, times: float = 5.0, spread: float = 0.08) -> None:
        if times <= 0 or not 0 <= spread < 0.5:
            raise ValueError(
                f"OWL needs times > 0 and 0 <= spread < 0.5; got times={times}, spread={spread}"
            )
        self.times, self.spread = times, spread

    def importance(self, block: Block, evidence: Mapping[str, torch.Tensor]) -> float:
        """The fraction of outliers in a block."""
        scores = []
        for site in block.sites:
            weight_OI = site.module.weight.detach()
            norm_I = evidence[site.table.reads].to(weight_OI.device)
            scores.append((weight_OI.abs().float() * norm_I).flatten())
        return outlier_ratio(torch.cat(scores), self.times)

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The budget, less what a block's outliers are above the mean."""
        lowest, highest = min(importance), max(importance)
        width = (highest - lowest) or 1.0
        scaled = [2 * self.spread * (value - lowest) / width for value in importance]
        mean = sum(x * n for x, n in zip(scaled, sizes, strict=True)) / sum(sizes)
        return meet([budget - (x - mean) for x in scaled], budget, sizes)
