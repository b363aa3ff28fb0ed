"""ResidualFit: fit every pruned layer, on what it really gets, to what the dense model does.

Every other method here asks a pruned layer to do on its inputs what the dense layer would do on
the same inputs. But those inputs are the pruned model's, so what went wrong before goes through
untouched, and errors add up. Here the dense model runs in step, and gives the target:

- a layer whose output goes into attention or an activation (q, k, v, gate, up) is fitted to the
  dense model's output of that layer;
- a layer that adds to the residual stream (o, down) is fitted to what would make the stream that of
  the dense model again: all that is wrong in it is put right as far as this layer can.

With x the input in the pruned model, d that in the dense one, e the error of the residual stream in
front of a layer that adds to it (else 0), both cases are least squares with the solution

    F = (W mean(d xᵀ) + mean(e xᵀ) + λ W) (mean(x xᵀ) + λ)⁻¹,        λ = ridge · mean diagonal.

The target is W* = W + trust (F - W). Half a step and a strong ridge are needed because calibration
tokens are few; without them the fit learns the calibration text. Then W* is pruned as ALPS does,
but in 40 iterations, under the same damped Gram matrix: mask by alternating directions, weights by
least squares. Layers go one after the other in one pass (propagate="layer"), so that each sees all
errors before it.

Source: the asymmetric target is that of Li et al., "GPTAQ", arXiv 2504.02692, for quantisation; the
solver that of Meng et al., "ALPS", arXiv 2406.07831. The target of the residual stream, the half
step, and their use for pruning are this package's.
Needs two forward passes, dense and pruned, and two products of the inputs.
Families with a norm behind the layer (Gemma, OPT-350m) take the layer's own dense output as target.

Axes: O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from lightning_prune.anatomy import Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import CrossGram, InputEvidence, PairedGram, TokenWeight
from lightning_prune.methods.base import Solving
from lightning_prune.methods.reconstruction import Problem, Reconstruction, Solution
from lightning_prune.repair import anneal, product, solved
from lightning_prune.selection import removed_count

__all__ = ["ResidualFit", "dense_target"]


def dense_target(
    weight_OI: torch.Tensor, evidence: PairedGram, ridge: float, trust: float
) -> torch.Tensor:
    """The dense weights that, on the pruned model's inputs, do best what the dense model does.

    Args:
        weight_OI: the layer's weights W.
        evidence: Gram matrices of x, the input in the pruned model, and d, that in the dense one.
        ridge: share of the mean diagonal that pulls towards W.
        trust: how far to go from W to the optimum, in (0, 1].

    Returns:
        (1 - trust) W + trust (W mean(d xᵀ) + mean(e xᵀ) + λ W) (mean(x xᵀ) + λ)⁻¹, (O, I).
    """
    strength = ridge * evidence.gram_II.diagonal().mean()
    if not strength > 0:  # the input is zero throughout: nothing can be learnt
        return weight_OI
    right_OI = product(weight_OI, evidence.cross_II) + strength * weight_OI
    if evidence.error_DI is not None:
        right_OI += evidence.error_DI
    damped_II = evidence.gram_II.clone()
    damped_II.diagonal().add_(strength)
    best_OI = solved(right_OI, torch.linalg.cholesky(damped_II))
    return torch.lerp(weight_OI, best_OI, trust)


class ResidualFit(PruningCallback, Reconstruction):
    """Fit every layer, on the inputs that pruning left it, to what the dense model does.

    ```python
    ResidualFit(sparsity=0.5, allocation=Sensitivity())
    ResidualFit(pattern="2:4")
    ```

    Args:
        ridge: share of the Gram matrix's mean diagonal that pulls the fit towards the weights as
            they were.
        trust: how far to go from the weights as they were to the fit, in (0, 1].
        token_weight: what a token counts by in the sums over tokens: the square of its length, that
            of its length up to three times the median, or all "equal".

    Raises:
        ValueError: an argument is out of range, or head=True: the head has no block to run beside.
    """

    own_scope = "balanced"
    solving = Solving(50, 15, products=80, inversions=12)

    ridge: float = 0.1
    trust: float = 0.5
    token_weight: TokenWeight = "square"
    propagate: Literal["layer"] = "layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("ridge", self.ridge > 0, "it is above 0; 0.1 is usual")
        self.require("trust", 0 < self.trust <= 1, "it is in (0, 1]; 0.5 goes half the way")
        self.require("head", not self.head, "it is False: the head has no block to run beside")

    @property
    def evidence(self) -> InputEvidence:
        """Gram matrices of what the pruned and the dense model get."""
        return CrossGram(token_weight=self.token_weight)

    def rows_apart(self, sites: Sequence[Site], share: float) -> bool:
        """If all rows of a matrix keep the same count."""
        if self.n_of_m or self.effective_scope != "balanced":
            return bool(self.n_of_m) or self.effective_scope == "row"
        shapes = [site.module.weight.shape for site in sites]
        return not any(removed_count(rows * width, share) % rows for rows, width in shapes)

    def solve(self, problem: Problem) -> Solution:
        """Aim at what the dense model does, and prune that."""
        evidence: PairedGram = problem.evidence
        target_OI = dense_target(problem.weight_OI, evidence, self.ridge, self.trust)
        keep = problem.by_site(self._keep)
        weight_OI, keep_OI = anneal(target_OI, evidence.gram_II, keep, damping=self.ridge)
        return Solution(weight_OI, keep_OI, target_OI.square() * evidence.gram_II.diagonal())
