"""SparseGPT: remove the weights that cost least, and let those to their right make up for them.

Source: Frantar, Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in
One-Shot", arXiv 2301.00774, algorithm 1.
Needs the Gram matrix of every input: one forward pass, and a second with propagate="block".
Differs from the authors' code: exact counts (ties="reference" is theirs, one more in every piece of
columns); one Gram matrix and one factorisation for all matrices that share their input; padding
does not count; damping that does not suffice is raised tenfold, said, and after four attempts
refused.

Axes: O output features, I input features, C consecutive columns.
"""

from __future__ import annotations

import torch

from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Gram, InputEvidence, TokenWeight
from lightning_prune.methods.base import Solving
from lightning_prune.methods.reconstruction import Problem, Reconstruction, Solution
from lightning_prune.repair import factored, obs_prune, saliency

__all__ = ["SparseGPT"]


class SparseGPT(PruningCallback, Reconstruction):
    """Choose weights by (w / U_jj)², some columns at a time, and correct what stays.

    ```python
    SparseGPT(sparsity=0.5)
    SparseGPT(pattern="2:4", propagate="layer")
    ```

    Args:
        damping: share of the Gram matrix's mean diagonal that is added to its diagonal.
        columns: columns that are chosen together, from the weights as corrected so far.
        token_weight: what a token counts by in sums over tokens: the square of its length, as in
            the paper; that of its length up to three times the median; or all "equal".
    """

    own_scope = "columns"
    solving = Solving(27, 6, products=1, inversions=0.5)

    damping: float = 0.01
    columns: int = 128
    token_weight: TokenWeight = "square"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("damping", self.damping > 0, "it is above 0; 0.01 is usual")
        self.require("columns", self.columns >= 1, "it is 1 or more; 128 is usual")
        self.check_scope()

    @property
    def evidence(self) -> InputEvidence:
        """The Gram matrix of every input."""
        return Gram(token_weight=self.token_weight)

    def solve(self, problem: Problem) -> Solution:
        """Eliminate from left to right."""
        factor = factored(problem.evidence, self.damping)
        choose = problem.by_site(self._keep, apart=self.n_of_m is None)

        def select(
            weight_OC: torch.Tensor, diagonal_C: torch.Tensor, columns: slice
        ) -> torch.Tensor:
            share = self.columns_share(columns, problem.share)
            return choose(saliency(weight_OC, diagonal_C), columns, share)

        step = self.n_of_m.group if self.n_of_m else self.columns
        weight_OI, keep_OI = obs_prune(problem.weight_OI, factor, select, step)
        return Solution(weight_OI, keep_OI, saliency(problem.weight_OI, factor.diagonal_I))
