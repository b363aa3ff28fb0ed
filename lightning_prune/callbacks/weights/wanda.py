"""Wanda: the weights that carry the least signal go, in every row alike.

Source: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language
Models", arXiv 2306.11695, equation 1: S_ij = |W_ij| · ||X_j||_2.
Needs the norm of every input feature, one forward pass, and a second to propagate.
Differs from the authors' code: padding does not count, tokens weigh the same in every sequence,
and equal scores go by index. On windows of one length the masks are the same.
"""

from __future__ import annotations

import torch

from lightning_prune.anatomy import Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import InputEvidence, InputNorm, TokenWeight
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.scores.wanda import adaptive_score, wanda_score
from lightning_prune.selection import Scope

__all__ = ["Wanda"]


class Wanda(PruningCallback, WeightPruning):
    """Zero the weights of lowest |W_ij| · ||X_j||, the same count in every row.

    ```python
    Wanda(sparsity=0.5)
    Wanda(pattern="2:4")
    Wanda(sparsity=0.6, allocation=OWL(), propagate="layer")
    Wanda(plan="runs/wanda/plan")
    ```

    Args:
        adaptive: remove the same share of the sum of scores from every row, and not the same
            count: the variant of the paper's code (use_variant). The count over the matrix is exact
            (theirs is a bisection that ends within 0.1%).
        token_weight: what a token counts by in sums over tokens: the square of its length, as in
            the paper; that of its length up to three times the median; or all "equal".

    Raises:
        ValueError: adaptive with a pattern or a scope, which fix the count themselves.
    """

    adaptive: bool = False
    token_weight: TokenWeight = "square"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adaptive and (self.pattern is not None or self.scope is not None):
            raise ValueError(
                "adaptive=True shares a matrix's count among its rows; it goes with sparsity, and "
                f"with neither pattern={self.pattern!r} nor scope={self.scope!r}"
            )

    @property
    def evidence(self) -> InputEvidence:
        """The norm of every input feature."""
        return InputNorm(token_weight=self.token_weight)

    @property
    def own_scope(self) -> Scope:  # type: ignore[override]
        """Rows; the whole matrix where rows may differ."""
        return "matrix" if self.adaptive else "row"

    def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        """Weights times input norms."""
        score_OI = wanda_score(site.module.weight, evidence)
        return adaptive_score(score_OI) if self.adaptive else score_OI
