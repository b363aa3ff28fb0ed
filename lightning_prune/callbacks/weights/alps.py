"""ALPS: look for the mask and the weights together, by alternating directions.

Source: Meng, Behdin, Wang, Mazumder, "ALPS: Improved Optimization for Highly Sparse One-Shot
Pruning for Large Language Models", arXiv 2406.07831, algorithms 1 and 2.
Needs the Gram matrix of every input: one forward pass, and a second with propagate="block".
Differs from the authors' code: the penalty rises by the square root of their factors, which takes
twice the iterations and finds a better support; the least squares run until they are solved; a
Cholesky factor whenever the penalty changes takes the place of one eigendecomposition in float64;
sites that share their input are solved together, each with its own count.

Axes: O output features, I input features.
"""

from __future__ import annotations

from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Gram, InputEvidence, TokenWeight
from lightning_prune.methods.base import Solving
from lightning_prune.methods.reconstruction import Problem, Reconstruction, Solution
from lightning_prune.repair import alps

__all__ = ["ALPS"]


class ALPS(PruningCallback, Reconstruction):
    """Choose weights by ADMM, then fit those that stay to the layer's output by least squares.

    ```python
    ALPS(sparsity=0.7)
    ALPS(pattern="2:4", propagate="layer")
    ```

    Args:
        damping: share of the Gram matrix's mean diagonal that is added to its diagonal.
        token_weight: what a token counts by in sums over tokens: the square of its length, as in
            the paper; that of its length up to three times the median; or all "equal".
    """

    own_scope = "matrix"
    solving = Solving(39, 17, products=150, inversions=60)

    damping: float = 0.01
    token_weight: TokenWeight = "square"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("damping", self.damping > 0, "it is above 0; 0.01 is usual")

    @property
    def evidence(self) -> InputEvidence:
        """The Gram matrix of every input."""
        return Gram(token_weight=self.token_weight)

    def solve(self, problem: Problem) -> Solution:
        """Alternate, then fit."""
        keep = problem.by_site(self._keep)
        weight_OI, keep_OI = alps(problem.weight_OI, problem.evidence, keep, damping=self.damping)
        score_OI = problem.weight_OI.square() * problem.evidence.diagonal()
        return Solution(weight_OI, keep_OI, score_OI)
