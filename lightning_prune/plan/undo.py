"""What a plan's masks have removed, put back, in whole or in part.

Axes: O output features, I input features, R entries of one weight that are removed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

__all__ = ["set_strength"]


@torch.no_grad()
def set_strength(
    model: nn.Module,
    strength: float,
    masks: Mapping[str, torch.Tensor],
    removed: Mapping[str, torch.Tensor],
    maker: str,
) -> None:
    """Give entries that masks removed a part of the values that they had, in place.

    Args:
        model: that the masks were applied to.
        strength: 1: they are zeros; 0: they are what they were.
        masks: by weight name, True = kept (O, I).
        removed: by the same names, the values of the others (R,), row by row.
        maker: of the masks, for messages.

    Raises:
        ValueError: the strength is none, values are lacking, or a weight is; nothing was changed
            then.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} is not allowed; it is from 0 (nothing) to 1")
    if not removed or removed.keys() != masks.keys():
        raise ValueError(
            f"this plan, of {maker}, has not kept what it removed, or cut it off: load the model "
            "anew. A Circuit with cut=False keeps it."
        )
    weights = dict(model.named_parameters())
    for name, keep_OI in masks.items():
        shape = tuple(weights[name].shape) if name in weights else None
        if shape != tuple(keep_OI.shape):
            raise ValueError(
                f"the plan masks {name!r} {tuple(keep_OI.shape)}, and the model has "
                f"{'no such weight' if shape is None else shape}. Pass the model that the plan was "
                "applied to, without adapters."
            )
    for name, keep_OI in masks.items():
        weight_OI = weights[name]
        left_R = removed[name].to(weight_OI.device) * (1 - strength)
        weight_OI[~keep_OI.to(weight_OI.device)] = left_R.to(weight_OI.dtype)
