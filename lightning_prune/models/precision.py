"""In which type small updates are trained.

A step of training changes a weight by less than bfloat16 can tell apart.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["trained_in_float32"]


def trained_in_float32(model: nn.Module) -> None:
    """Make the trainable weights float32; peft computes with them beside weights of any type."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
