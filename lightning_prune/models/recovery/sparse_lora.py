"""LoRA on masked weights: the sum of weight and update is masked while it is trained.

A low-rank update is dense. Added to a masked weight, it would fill the zeros; masked only when it
is merged, it would be another update than the one that was trained. Here the forward pass is that
of the merged layer, (W + s B A ∘ M) x, bit for bit, so nothing changes when it is merged. (As
SparsePEFT of Muñoz, Yuan, Jain, "SQFT", arXiv 2410.03750.)

Cost: the gradient of the sum, as large as the weight, has to be made before it can be masked. That
is one more matrix product in the backward pass, of three. Neither the sum nor its gradient outlives
the layer; the mask takes one bit for each weight.

Axes: N tokens, O output features, I input features, R rank, P packed bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import nn
from torch.autograd.function import once_differentiable

from lightning_prune.models.recovery.nf4 import compute_dtype, dequantised
from lightning_prune.plan import Plan
from lightning_prune.plan.file import pack, unpack

__all__ = ["SparseLinear", "lora_layer"]


def lora_layer(model: nn.Module, plan: Plan | None) -> Callable[..., Linear]:
    """What makes the layer around a Linear of `model`: a masked one where the plan has a mask."""
    names = {id(module): f"{name}.weight" for name, module in model.named_modules()}
    masked = set(plan.mask_names if plan is not None else ())

    def make(target: nn.Module, adapter_name: str, **settings: Any) -> Linear:
        name = names[id(target)]
        if plan is None or name not in masked:
            return Linear(target, adapter_name, **settings)
        return SparseLinear(target, adapter_name, keep_OI=plan.mask(name), **settings)

    return make


class SparseLinear(Linear):
    """A Linear with a masked weight, and a low-rank update under the same mask.

    Args:
        base_layer: the Linear, its weight masked, or quantised to NF4.
        adapter_name: as in peft.
        keep_OI: the mask, True = kept.
        settings: as in peft.
    """

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, keep_OI: torch.Tensor, **settings: Any
    ) -> None:
        super().__init__(base_layer, adapter_name, **settings)
        # No buffer: it comes from the plan again, and nothing may average, convert or send it.
        self.keep_P = pack(keep_OI)

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """The masked update (O, I) in float32; peft adds it to the weight when it merges."""
        return _delta(*self._update(adapter))

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(W + s B A ∘ M) x; with dropout, W x + (s B A ∘ M) dropout(x)."""
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        base, (adapter,) = self.get_base_layer(), self.active_adapters
        update = self._update(adapter)
        dropout = self.lora_dropout[adapter]
        if self.training and not isinstance(dropout, nn.Identity):
            return base(x) + _MaskedSum.apply(dropout(x), *update)
        state = getattr(base, "quant_state", None)
        return _MaskedSum.apply(x, *update, base.weight, base.bias, state)

    def _update(self, adapter: str) -> tuple[Any, ...]:
        A_RI: Any = self.lora_A[adapter].weight
        self.keep_P = self.keep_P.to(A_RI.device)  # it does not move with the module
        return A_RI, self.lora_B[adapter].weight, self.keep_P, self.scaling[adapter]


def _delta(
    A_RI: torch.Tensor, B_OR: torch.Tensor, keep_P: torch.Tensor, scaling: float
) -> torch.Tensor:
    with torch.autocast(A_RI.device.type, enabled=False):
        delta_OI = (B_OR.float() * scaling) @ A_RI.float()
    return delta_OI.mul_(unpack(keep_P, delta_OI.shape))


class _MaskedSum(torch.autograd.Function):
    """x (W + s B A ∘ M)^T. The sum is made again in the backward pass, and not kept in between."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        A_RI: torch.Tensor,
        B_OR: torch.Tensor,
        keep_P: torch.Tensor,
        scaling: float,
        weight: torch.Tensor | None = None,
        bias_O: torch.Tensor | None = None,
        quant_state: Any = None,
    ) -> torch.Tensor:
        x_dtype, x = x.dtype, x.to(compute_dtype(x))
        ctx.save_for_backward(x, A_RI, B_OR, keep_P, weight)
        ctx.rest = scaling, quant_state, x_dtype
        total_OI = _total(A_RI, B_OR, keep_P, scaling, weight, quant_state)
        bias_O = None if bias_O is None else bias_O.to(x.dtype)
        return nn.functional.linear(x, total_OI.to(x.dtype), bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, A_RI, B_OR, keep_P, weight = ctx.saved_tensors
        scaling, quant_state, x_dtype = ctx.rest
        grad_x = None
        if ctx.needs_input_grad[0]:
            total_OI = _total(A_RI, B_OR, keep_P, scaling, weight, quant_state)
            grad_x = (grad @ total_OI.to(grad.dtype)).to(x_dtype)
        grad_OI = grad.flatten(0, -2).T @ x.flatten(0, -2)
        grad_OI.mul_(unpack(keep_P, grad_OI.shape))
        grad_A = (B_OR.to(grad.dtype).T @ grad_OI).to(A_RI.dtype) * scaling
        grad_B = (grad_OI @ A_RI.to(grad.dtype).T).to(B_OR.dtype) * scaling
        return grad_x, grad_A, grad_B, *(None,) * 5


def _total(
    A_RI: torch.Tensor,
    B_OR: torch.Tensor,
    keep_P: torch.Tensor,
    scaling: float,
    weight: torch.Tensor | None,
    quant_state: Any,
) -> torch.Tensor:
    """The sum as merging makes it, in the weight's own type; without a weight, the update."""
    delta_OI = _delta(A_RI, B_OR, keep_P, scaling)
    if weight is None:
        return delta_OI
    weight_OI = dequantised(weight, quant_state)
    return weight_OI + delta_OI.to(weight_OI.dtype)
