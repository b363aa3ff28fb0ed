"""Gram matrices made ready: checked, damped, scaled.

Axes: I input features, S some of them, N right-hand sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["ScaledGram", "check_gram", "positive_solve", "scaled_gram"]


def check_gram(gram_II: torch.Tensor) -> None:
    """Refuse a Gram matrix from which nothing can be solved.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    if not gram_II.isfinite().all():
        raise ValueError(
            f"the Gram matrix of a layer's inputs ({len(gram_II)} features) holds NaN or infinity: "
            "its activations overflow in this precision, or an earlier layer is broken; calibrate "
            "in bfloat16 or float32"
        )


def positive_solve(matrix_SS: torch.Tensor, right_SN: torch.Tensor) -> torch.Tensor:
    """A⁻¹B of symmetric positive definite matrices, one or a batch.

    By Cholesky: half the work of LU, and torch's LU of a batch is wrong on CPUs with several
    threads (PyTorch issues 141358 and 142815). Where rounding has made a matrix indefinite, the
    diagonal is raised by as little of its mean as helps.

    Args:
        matrix_SS: (..., S, S); not changed.
        right_SN: (..., S, N).

    Raises:
        ValueError: a matrix is far from positive definite.
    """
    mean = matrix_SS.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    one_SS = torch.eye(matrix_SS.shape[-1], dtype=matrix_SS.dtype, device=matrix_SS.device)
    for ridge in (0.0, 1e-12, 1e-9, 1e-6):
        raised_SS = matrix_SS + ridge * mean * one_SS if ridge else matrix_SS
        lower_SS, failed = torch.linalg.cholesky_ex(raised_SS)
        if not failed.any():
            return torch.cholesky_solve(right_SN, lower_SS)
    raise ValueError(
        f"a matrix of {matrix_SS.shape[-1]} features that the removal of units needs is not "
        "positive definite: give more calibration tokens, or a larger damping"
    )


@dataclass(frozen=True)
class ScaledGram:
    """A damped Gram matrix H with inputs scaled to norm one.

    Args:
        unit_II: H / (norm norm ᵀ), with ones on the diagonal.
        norm_I: square roots of the diagonal of H; 1 where that is zero.
        ridge: what was added to the diagonal of the Gram matrix.
    """

    unit_II: torch.Tensor
    norm_I: torch.Tensor
    ridge: torch.Tensor


def scaled_gram(
    gram_II: torch.Tensor, damping: float, dtype: torch.dtype = torch.float32
) -> ScaledGram:
    """Add `damping` times the mean diagonal to the diagonal, and scale it to ones.

    Raises:
        ValueError: as for `check_gram`.
    """
    check_gram(gram_II)
    damped_II = gram_II.clone()
    ridge = damping * gram_II.diagonal().mean()
    damped_II.diagonal().add_(ridge)
    norm_I = damped_II.diagonal().sqrt()
    norm_I = norm_I.masked_fill(norm_I == 0, 1)
    damped_II.div_(norm_I).div_(norm_I[:, None])
    return ScaledGram(damped_II.to(dtype), norm_I.to(dtype), ridge.to(dtype))
