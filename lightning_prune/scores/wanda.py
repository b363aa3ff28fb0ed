"""Weights times the norms of what they read: of each weight, of columns, of whole units.

Source: Sun, Liu, Bair, Kolter, arXiv 2306.11695, equation 1: S_ij = |W_ij| · ||X_j||_2.

Axes: O output features, I input features, U units of one block, S features of one unit.
"""

from __future__ import annotations

import torch

from lightning_prune.anatomy import Block

__all__ = ["adaptive_score", "column_score", "unit_mean", "wanda_score"]


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


def column_score(weight_OI: torch.Tensor, norm_I: torch.Tensor) -> torch.Tensor:
    """The mean over the rows of |W_ij| · ||X_j||_2 in fp32, (I,).

    Args:
        weight_OI: the weight.
        norm_I: L2 norm of every input feature over the calibration tokens.
    """
    return weight_OI.detach().abs().float().mean(dim=0) * norm_I


def unit_mean(block: Block, kind: str, score_I: torch.Tensor) -> torch.Tensor:
    """The mean over the features of every unit, (U,).

    Args:
        block: the block.
        kind: "group" or "neuron".
        score_I: one number for every input feature of the site that reads the units.
    """
    score_US1 = block.reader(kind).gather(score_I[None], block.units(kind))
    return score_US1.mean(dim=(1, 2))
