"""What a layer's output loses when its weights change.

Axes: O output features, I input features.
"""

from __future__ import annotations

import torch

__all__ = ["relative_error"]


def relative_error(
    weight_OI: torch.Tensor, new_OI: torch.Tensor, gram_II: torch.Tensor
) -> torch.Tensor:
    """||X(W - W')||² / ||XW||² in float64, a scalar, with XᵀX in any positive scale.

    A layer whose dense output is zero has no relative error: 0/0 is NaN.
    """
    gram_II, weight_OI = gram_II.double(), weight_OI.double()
    change_OI = new_OI.double() - weight_OI
    lost = (change_OI @ gram_II).mul_(change_OI).sum()
    return lost / (weight_OI @ gram_II).mul_(weight_OI).sum()
