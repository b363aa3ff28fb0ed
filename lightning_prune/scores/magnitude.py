"""The size of weights: of each alone, and of whole units.

Axes: O output features, I input features, U units of one block.
"""

from __future__ import annotations

import torch

from lightning_prune.anatomy import Block

__all__ = ["magnitude_score", "unit_norm"]


def magnitude_score(weight_OI: torch.Tensor) -> torch.Tensor:
    """|W_ij| in fp32, shape (O, I)."""
    return weight_OI.detach().abs().float()


def unit_norm(block: Block, kind: str, power: int) -> torch.Tensor:
    """The L1 or L2 norm of all the weights of each unit, (U,).

    Args:
        block: the block.
        kind: "group": rows of q, k, v and columns of o; "neuron": rows of gate and up, columns of
            down.
        power: 1 or 2.
    """
    units = block.units(kind)
    parts = [
        member.gather(member.site.module.weight.detach(), units).float().abs().pow(power)
        for member in block.members(kind)
    ]
    return torch.stack([part.sum(dim=(1, 2)) for part in parts]).sum(dim=0).pow(1 / power)
