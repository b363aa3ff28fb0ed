"""How much each token counts in sums of squares.

A few tokens of a language model, the first of a text above all, have activations that are hundreds
of times as long as those of the others (Sun et al., "Massive Activations in Large Language Models",
arXiv 2402.17762). In a sum of squares they are most of what is heard, and what ordinary tokens need
is lost. The papers' sums are as they are; the other two weights are this package's.

Axes: B sequences, T tokens, I input features.
"""

from __future__ import annotations

from typing import Literal

import torch

__all__ = ["CLIP", "TokenWeight", "scaled", "token_scale"]

TokenWeight = Literal["square", "clipped", "equal"]
"""What a token counts by: the square of its length, as sums of squares have it; that of its length
up to `CLIP` times the window's median; or the same as every other."""

CLIP = 3.0


def token_scale(
    input_BTI: torch.Tensor, keep_BT: torch.Tensor | None, weight: TokenWeight
) -> torch.Tensor | None:
    """What tokens are multiplied by, so that each counts as asked in sums of squares and products.

    Each window is looked at by itself, so that sums depend neither on the size of the batches nor
    on which process has which.

    Args:
        input_BTI: inputs of a Linear.
        keep_BT: False where a token does not count; None: all count.
        weight: what a token counts by.

    Returns:
        Factors, (B, T, 1), fp32; None: 1 for all.
    """
    if weight == "square":
        return None
    length_BT1 = torch.linalg.vector_norm(input_BTI, dim=-1, keepdim=True, dtype=torch.float32)
    inverse_BT1 = length_BT1.clamp(min=torch.finfo(torch.float32).tiny).reciprocal()
    if weight == "equal":
        return inverse_BT1
    if keep_BT is not None:
        length_BT1 = length_BT1.masked_fill(~keep_BT[..., None], torch.nan)
    most_B11 = CLIP * length_BT1.nanmedian(dim=1, keepdim=True).values
    return (most_B11 * inverse_BT1).clamp(max=1)


def scaled(input_BTI: torch.Tensor, scale_BT1: torch.Tensor | None) -> torch.Tensor:
    """Tokens times their factors, in their own type."""
    return input_BTI if scale_BT1 is None else (input_BTI * scale_BT1).to(input_BTI.dtype)
