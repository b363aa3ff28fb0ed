"""Gram matrices made ready: checked, damped, scaled.

Axes: I input features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["ScaledGram", "check_gram", "scaled_gram"]


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
