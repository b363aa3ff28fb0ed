"""In which type small updates are trained.

A step of training changes a weight by less than bfloat16 can tell apart.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["trained_in_float32"]

Apply = Callable[[torch.Tensor], torch.Tensor]


def trained_in_float32(apply: Apply) -> Apply:
    """What a module is told to do to all of its tensors, but trainable ones become float32.

    peft computes with them beside weights of any type.

    Args:
        apply: as `nn.Module._apply` takes it, e.g. for `module.to(torch.bfloat16)`.
    """

    def applied(tensor: torch.Tensor) -> torch.Tensor:
        result = apply(tensor)
        half = result.dtype in (torch.bfloat16, torch.float16)
        if not (half and tensor.requires_grad):
            return result
        # Not from the result, which is rounded already.
        return tensor.to(result.device, torch.float32)

    return applied
