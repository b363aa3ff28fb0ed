"""What a product with sparse activations is, in plain torch.

Axes: I input features, O output features; leading axes are left out.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["is_small", "reference_product", "without_small"]


def is_small(input_I: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which inputs count as zero: |x| <= threshold, in fp32. What is no number does not.

    Source: TEAL (Liu et al., arXiv 2408.14690), section 3: |x| must be above the threshold to stay.
    """
    return input_I.abs().float() <= threshold


def without_small(input_I: torch.Tensor, threshold: float) -> torch.Tensor:
    """The input with zeros where |x| <= threshold."""
    return input_I.masked_fill(is_small(input_I, threshold), 0)


def reference_product(
    input_I: torch.Tensor,
    weight_OI: torch.Tensor,
    threshold: float,
    bias_O: torch.Tensor | None = None,
) -> torch.Tensor:
    """The dense product in fp32, with zeros where |x| <= threshold."""
    small_I = without_small(input_I, threshold).float()
    return nn.functional.linear(
        small_I, weight_OI.float(), None if bias_O is None else bias_O.float()
    )
