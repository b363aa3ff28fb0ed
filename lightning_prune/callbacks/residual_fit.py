"""ResidualFit: fit every pruned layer, on what it really gets, to what the dense model does.

Needs, beside the pruned model, the dense one, and the Gram matrices of both: two forward passes,
and about one and a half more for the matrices.

Axes: O output features, I input features.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from lightning_prune.callbacks.reconstruction import Problem, Reconstruction, Solution
from lightning_prune.evidence import CrossGram, PairedGram
from lightning_prune.repair import alps

__all__ = ["ResidualFit", "dense_target"]


def dense_target(
    weight_OI: torch.Tensor, found: PairedGram, ridge: float, trust: float
) -> torch.Tensor:
    """The dense weights that, on the pruned model's inputs, do best what the dense model does.

    Args:
        weight_OI: the layer's weights W.
        found: the Gram matrices of x, the input in the pruned model, and d, that in the dense one.
        ridge: share of the mean diagonal that pulls towards W.
        trust: how far to go from W to the optimum, in (0, 1].

    Returns:
        (1 - trust) W + trust (W mean(d xᵀ) + mean(e xᵀ) + λ W) (mean(x xᵀ) + λ)⁻¹, (O, I).
    """
    strength = ridge * found.gram_II.diagonal().mean()
    right_OI = weight_OI @ found.cross_II + strength * weight_OI
    if found.error_DI is not None:
        right_OI += found.error_DI
    damped_II = found.gram_II.clone()
    damped_II.diagonal().add_(strength)
    best_OI = torch.cholesky_solve(right_OI.mT, torch.linalg.cholesky(damped_II)).mT
    return torch.lerp(weight_OI, best_OI, trust)


class ResidualFit(Reconstruction):
    own_scope = "row"
    evidence = CrossGram

    def __init__(
        self,
        sparsity: float | None = None,
        pattern: str | int | None = None,
        ridge: float = 0.1,
        trust: float = 0.5,
        order: Literal["linear"] = "linear",
        **settings: Any,
    ) -> None:
        super().__init__(sparsity, pattern, order=order, **settings)
        self.ridge, self.trust = ridge, trust

    def solve(self, problem: Problem) -> Solution:
        found: PairedGram = problem.evidence
        target_OI = dense_target(problem.weight_OI, found, self.ridge, self.trust)
        keep = problem.by_site(lambda score_OI: self._keep(score_OI, problem.share))
        weight_OI, keep_OI = alps(target_OI, found.gram_II, keep, damping=self.ridge)
        return Solution(weight_OI, keep_OI, target_OI.square() * found.gram_II.diagonal())
