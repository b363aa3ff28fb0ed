"""Wanda: the weights that carry the least signal go, in every row alike.

Source: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language
Models", arXiv 2306.11695, equation 1: S_ij = |W_ij| · ||X_j||_2.
Needs the norm of every input feature, one forward pass, and a second to propagate.
Differs from the authors' code: padding does not count, tokens weigh the same in every sequence,
and equal scores go by index. On windows of one length the masks are the same.

Axes: O output features, I input features.
"""

from __future__ import annotations

from typing import Any

import torch

from lightning_prune.anatomy import Site
from lightning_prune.callbacks.weight_pruning import WeightPruning
from lightning_prune.evidence import InputNorm
from lightning_prune.selection import Scope

__all__ = ["Wanda", "adaptive_score", "wanda_score"]


def wanda_score(weight_OI: torch.Tensor, norm_I: torch.Tensor) -> torch.Tensor:
    """|W_ij| · ||X_j||_2 in fp32, shape (O, I).

    Args:
        weight_OI: the weight.
        norm_I: L2 norm of every input feature over the calibration tokens.
    """
    return weight_OI.detach().abs() * norm_I


def adaptive_score(score_OI: torch.Tensor) -> torch.Tensor:
    """The share of its row's total that a score has together with all lower ones, (O, I).

    Removing what lies below one level, the same for all rows, takes the same share of every row's
    total, and so more weights from rows in which few weights carry most of it.
    """
    order_OI = score_OI.argsort(dim=1, stable=True)
    share_OI = score_OI.gather(1, order_OI).double().cumsum(dim=1)
    share_OI /= share_OI[:, -1:].clamp(min=torch.finfo(torch.float64).tiny)
    return torch.empty_like(score_OI).scatter_(1, order_OI, share_OI.to(score_OI.dtype))


class Wanda(WeightPruning):
    """Zero the weights of lowest |W_ij| · ||X_j||, the same count in every row.

    ```python
    Wanda(sparsity=0.5)
    Wanda(pattern="2:4")
    Wanda(sparsity=0.6, allocation=OWL(), order="linear")
    Wanda(plan="runs/wanda/plan")
    ```

    Args:
        sparsity: fraction of zeros, in [0, 1). Give this or `pattern`.
        pattern: "N:M": N weights KEPT of every M consecutive inputs, as in "2:4".
        adaptive: remove the same share of the sum of scores from every row, and not the same
            count: the variant of the paper's code (use_variant). The count over the matrix is exact
            (theirs is a bisection that ends within 0.1%).
        settings: the arguments of `WeightPruning`.

    Raises:
        ValueError: adaptive with a pattern or a scope, which fix the count themselves.
    """

    evidence = InputNorm

    def __init__(
        self,
        sparsity: float | None = None,
        pattern: str | int | None = None,
        adaptive: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(sparsity, pattern, **settings)
        if adaptive and (pattern is not None or self.scope is not None):
            raise ValueError(
                "adaptive=True shares a matrix's count among its rows; it goes with sparsity, and "
                f"with neither pattern={pattern!r} nor scope={self.scope!r}"
            )
        self.adaptive = adaptive

    @property
    def own_scope(self) -> Scope:  # type: ignore[override]
        """Rows; the whole matrix where rows may differ."""
        return "matrix" if self.adaptive else "row"

    def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        """Weights times input norms."""
        score_OI = wanda_score(site.module.weight, evidence.to(site.module.weight.device))
        return adaptive_score(score_OI) if self.adaptive else score_OI
