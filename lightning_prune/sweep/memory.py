"""Whether the gradients of a whole model fit where it runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import psutil
import torch

from lightning_prune.anatomy import Block
from lightning_prune.evidence import WeightEvidence
from lightning_prune.sweep.losses import Loss, Roots

__all__ = ["fits_whole"]

SMALL = 2**29
"""Bytes that may be taken of the CPU's memory, which other programs want too, to save time."""


def fits_whole(loss: Loss, evidence: WeightEvidence, blocks: Sequence[Block]) -> bool:
    """Whether a gradient sweep over the whole model takes little enough memory.

    At most half of what is free on a GPU; on the CPU no more than `SMALL`.
    """
    states = loss.states
    if states.offload or states.placement.saves_memory or not states.indices:
        return False
    sums = sum(site.module.weight.numel() for block in blocks for site in block.sites)
    first = min(block.index for block in blocks)
    behind = states.anatomy.blocks[first:]
    needed = 8 * sums * evidence.floats + states.placement.bytes_missing()
    if behind:
        needed += len(behind) * _held(loss, behind[0])
    allowed = _free(states.device) // 2
    return needed <= (allowed if states.device.type == "cuda" else min(allowed, SMALL))


def _held(loss: Loss, block: Block) -> int:
    """Bytes that a block's pass forward keeps for its pass back, on the largest batch."""
    states = loss.states
    index = max(states.indices, key=lambda i: states.shape(i).numel())
    parameters = {parameter.data_ptr() for parameter in block.module.parameters()}
    held: dict[int, int] = {}
    roots = Roots()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters:
            held[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def listen(_: Any, inputs: tuple[torch.Tensor, ...], __: Any) -> None:
        keep(inputs[0])

    with ExitStack() as stack:
        stack.enter_context(states.placement.block(block))
        for site in block.sites:
            stack.callback(site.module.register_forward_hook(listen).remove)
        stack.enter_context(loss.beginning(block, index, roots))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor))
        states.run(block, index, states.entering(index).detach().requires_grad_())
        for tensor, gradient in roots:
            keep(tensor), keep(gradient)
    return sum(held.values())


def _free(device: torch.device) -> int:
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
