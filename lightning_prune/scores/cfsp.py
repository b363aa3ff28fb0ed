"""How much of its block a neuron carries, by its weights and by what it says.

Source: Wang et al., "CFSP", arXiv 2409.13199, equation 8, and the local metrics of its code.

Axes: D hidden size, U units (neurons) of one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

__all__ = ["Formula", "LocalMetric", "neuron_score", "relative"]


LocalMetric = Literal[
    "three_w_one_wa", "three_w_one_a", "one_wa", "one_a", "wanda_base", "mag_base"
]


Formula = Literal["paper", "code"]


def relative(weight_UD: torch.Tensor, formula: Formula) -> torch.Tensor:
    """n(A): magnitudes as shares of their sum, (U, D).

    Args:
        weight_UD: the weights of every neuron in one site.
        formula: "paper": of the sum over neurons; "code": of the sum over the hidden size.
    """
    size_UD = weight_UD.abs()
    total = size_UD.sum(dim=0 if formula == "paper" else 1, keepdim=True)
    return size_UD / total.clamp(min=torch.finfo(size_UD.dtype).tiny)


def neuron_score(
    metric: LocalMetric,
    formula: Formula,
    down_UD: torch.Tensor,
    rows_UD: Sequence[torch.Tensor],
    norm_U: torch.Tensor,
    b: float = 1.0,
    c: float = 1.0,
) -> torch.Tensor:
    """One of CFSP's local metrics of every neuron, (U,).

    Args:
        metric: which one.
        formula: what relative magnitudes are relative to.
        down_UD: the columns of down_proj.
        rows_UD: the rows of up_proj and gate_proj, or of the one Linear that stands for both.
        norm_U: ||X_j||_2 of every input feature of down_proj.
        b: power of the norm next to W_down.
        c: power of the norm around all.
    """
    if metric == "mag_base":
        return torch.linalg.vector_norm(down_UD, dim=1)
    if metric == "wanda_base":
        return down_UD.abs().mean(dim=1) * norm_U
    heard_UD = down_UD * norm_U[:, None] ** b if metric.endswith("wa") else down_UD
    total_U = relative(heard_UD, formula).mean(dim=1)
    if metric == "one_a":
        return total_U * norm_U.sqrt()
    if metric.startswith("three"):
        total_U = total_U + sum(relative(row_UD, formula).mean(dim=1) for row_UD in rows_UD)
    return total_U * norm_U**c
