"""SparseGPT: remove the weights that cost least, and let those to their right make up for them.

Source: Frantar, Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in
One-Shot", arXiv 2301.00774, algorithm 1.
Needs the Gram matrix of every input: one forward pass, and a second to propagate (order="block").
Differs from the authors' code: exact counts (ties="reference" is theirs, one more in every block of
columns); one Gram matrix and one factorisation for all matrices that share their input; padding
does not count; damping that does not suffice is raised tenfold, said, and after four attempts
refused.

Axes: O output features, I input features, B columns of a block.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from lightning_prune.callbacks.reconstruction import Problem, Reconstruction, Solution
from lightning_prune.repair import HessianFactor, hessian_factor, obs_prune, saliency

__all__ = ["SparseGPT"]


class SparseGPT(Reconstruction):
    """Choose weights by (w / U_jj)², block of columns by block, and correct what stays.

    ```python
    SparseGPT(sparsity=0.5)
    SparseGPT(pattern="2:4", order="linear")
    ```

    Args:
        sparsity: fraction of zeros, in [0, 1). Give this or `pattern`.
        pattern: "N:M": N weights KEPT of every M consecutive inputs, as in "2:4".
        damping: share of the Gram matrix's mean diagonal that is added to its diagonal.
        block_size: columns that are chosen together, from the weights as corrected so far.
        settings: the arguments of `WeightPruning`.
    """

    own_scope = "block"

    def __init__(
        self,
        sparsity: float | None = None,
        pattern: str | int | None = None,
        damping: float = 0.01,
        block_size: int = 128,
        **settings: Any,
    ) -> None:
        super().__init__(sparsity, pattern, **settings)
        check_damping(damping)
        if block_size < 1:
            raise ValueError(f"block_size={block_size} must be at least 1; 128 is usual")
        self.check_scope()
        self.damping, self.block_size = damping, block_size

    def solve(self, problem: Problem) -> Solution:
        """Eliminate from left to right."""
        factor = factored(problem.evidence, self.damping)
        choose = problem.by_site(self._keep)

        def select(
            weight_OB: torch.Tensor, diagonal_B: torch.Tensor, columns: slice
        ) -> torch.Tensor:
            share = self.block_share(columns, problem.share)
            return choose(saliency(weight_OB, diagonal_B), columns, share)

        step = self._pattern.group if self._pattern else self.block_size
        weight_OI, keep_OI = obs_prune(problem.weight_OI, factor, select, step)
        return Solution(weight_OI, keep_OI, saliency(problem.weight_OI, factor.diagonal_I))


def factored(gram_II: torch.Tensor, damping: float) -> HessianFactor:
    """The factor of a Gram matrix; says so if it took more damping than was asked for."""
    factor = hessian_factor(gram_II, damping)
    if factor.damping > damping:
        warnings.warn(
            f"a Gram matrix of {len(gram_II)} inputs took damping={factor.damping:g} in place of "
            f"{damping:g}; more calibration tokens would help",
            stacklevel=2,
        )
    return factor


def check_damping(damping: float, name: str = "damping", usual: float = 0.01) -> None:
    """Refuse a damping that is not positive."""
    if not damping > 0:
        raise ValueError(f"{name}={damping} must be more than 0; {usual:g} is usual")
