"""Linears whose weight is quantised to NF4, through bitsandbytes.

Source: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv 2305.14314,
sections 3 (NormalFloat, double quantisation) and 4. Zero is one of the 16 values of NF4, so the
zeros of a masked weight stay exactly zero.

bitsandbytes' own Linear4bit puts the statistics of its weight into the state dict, where they
cannot be loaded from, and on some CPUs repacks the weight in evaluation; hence this class.

Axes: O output features, I input features, P packed bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bitsandbytes import matmul_4bit
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import nn

__all__ = ["NF4Linear", "compute_dtype", "dequantise_linears", "dequantised"]

PER_SCALE = 64
"""Weights that share a scale; the scales are quantised to 8 bits too, 256 with one."""


class NF4Linear(nn.Linear):
    """A frozen Linear that holds 4.13 bits a weight, and computes with the weight they stand for.

    The packed weight is neither a parameter nor a buffer: it is made again from the model, and
    nothing may train, average, convert or send it.

    Args:
        linear: what is quantised; it is left as it is.
        device: where to quantise, which is slow on a CPU; the result is where the Linear is.
    """

    def __init__(self, linear: nn.Linear, device: torch.device | None = None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight_OI = linear.weight.detach()
        packed_P, self.quant_state = quantize_4bit(
            weight_OI.to(device or weight_OI.device).contiguous(),
            blocksize=PER_SCALE,
            compress_statistics=True,
            quant_type="nf4",
        )
        self.weight = packed_P.to(weight_OI.device)
        self.quant_state.to(weight_OI.device)
        self.bias = linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As a Linear; the weight is dequantised for the moment, and again in the backward pass."""
        x = x.to(compute_dtype(x))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return matmul_4bit(x, self.weight.t(), quant_state=self.quant_state, bias=bias)

    def linear(self, dtype: torch.dtype) -> nn.Linear:
        """A plain Linear with the weight that the bits stand for."""
        plain = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        weight_OI = dequantised(self.weight, self.quant_state).to(dtype)
        plain.weight = nn.Parameter(weight_OI, requires_grad=False)
        plain.bias = self.bias
        return plain

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> NF4Linear:
        super()._apply(fn, recurse)
        self.weight = fn(self.weight)
        self.quant_state.to(self.weight.device)
        return self


def dequantised(weight: torch.Tensor, quant_state: Any) -> torch.Tensor:
    """The weight (O, I) that packed bits stand for; without a state, the weight as it is."""
    return weight if quant_state is None else dequantize_4bit(weight, quant_state)


def dequantise_linears(model: nn.Module, dtype: torch.dtype) -> None:
    """Put plain Linears in the place of all quantised ones, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NF4Linear):
                setattr(module, name, child.linear(dtype))


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """In which type a Linear would compute with this input."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
