"""Wanda: the weights that carry the least signal go, in every row alike.

Source: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language
Models", arXiv 2306.11695, equation 1: S_ij = |W_ij| · ||X_j||_2.
Needs the norm of every input feature, one forward pass, and a second to propagate.
Differs from the authors' code: padding does not count, tokens weigh the same in every sequence,
and equal scores go by index. On windows of one length the masks are the same.

Axes: O output features, I input features.
"""

from __future__ import annotations

import torch

from lightning_prune.anatomy import Site
from lightning_prune.callbacks.weight_pruning import WeightPruning
from lightning_prune.evidence import InputNorm

__all__ = ["Wanda", "wanda_score"]


def wanda_score(weight_OI: torch.Tensor, norm_I: torch.Tensor) -> torch.Tensor:
    """|W_ij| · ||X_j||_2 in fp32, shape (O, I).

    Args:
        weight_OI: the weight.
        norm_I: L2 norm of every input feature over the calibration tokens.
    """
    return weight_OI.detach().abs() * norm_I


class Wanda(WeightPruning):
    """Zero the weights of lowest |W_ij| · ||X_j||, the same count in every row.

    ```python
    Wanda(sparsity=0.5)
    Wanda(pattern="2:4")
    Wanda(plan="runs/wanda/plan")
    ```

    Args:
        sparsity: fraction of zeros, in [0, 1). Give this or `pattern`.
        pattern: "N:M": N weights KEPT of every M consecutive inputs, as in "2:4".
        settings: the arguments of `PruningCallback`.
    """

    evidence = InputNorm

    def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        """Weights times input norms."""
        return wanda_score(site.module.weight, evidence)
