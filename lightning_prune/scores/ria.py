"""Relative importance and activations.

Source: Zhang et al., "Plug-and-Play", ICLR 2024, equations 3 and 4.

Axes: O output features, I input features.
"""

from __future__ import annotations

import torch

__all__ = ["ria_score"]


def ria_score(weight_OI: torch.Tensor, norm_I: torch.Tensor, power: float = 0.5) -> torch.Tensor:
    """(|W_ij| / Σ_i |W_ij| + |W_ij| / Σ_j |W_ij|) · ||X_j||^power in fp32, shape (O, I).

    Args:
        weight_OI: the weight.
        norm_I: L2 norm of every input feature over the calibration tokens.
        power: of the norms.
    """
    size_OI = weight_OI.detach().abs().float()
    tiny = torch.finfo(torch.float32).tiny  # a feature of zeros has no importance, not NaN
    of_input_I = size_OI.sum(dim=0).clamp(min=tiny)
    of_output_O1 = size_OI.sum(dim=1, keepdim=True).clamp(min=tiny)
    return (size_OI / of_input_I + size_OI / of_output_O1) * norm_I**power
