"""Whether the gradients of a whole model, and the inputs of all blocks, fit where they are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from lightning_prune.anatomy import Block
from lightning_prune.evidence import WeightEvidence
from lightning_prune.machine import free_on_device
from lightning_prune.sweep.losses import Loss, Roots
from lightning_prune.sweep.states import HiddenStates

__all__ = ["SMALL", "blocks_between", "fits_whole", "spacing"]

SMALL = 2**29
"""Bytes that may be taken of the CPU's memory, which other programs want too, to save time."""


def fits_whole(loss: Loss, evidence: WeightEvidence, blocks: Sequence[Block]) -> bool:
    """Whether a gradient sweep over the whole model takes little enough memory."""
    states = loss.states
    if states.offload or states.placement.saves_memory or not states.indices:
        return False
    sums = sum(site.module.weight.numel() for block in blocks for site in block.sites)
    first = min(block.index for block in blocks)
    behind = states.anatomy.blocks[first:]
    needed = 8 * sums * evidence.floats + states.placement.bytes_missing()
    if behind:
        needed += len(behind) * _held(loss, behind[0])
    return needed <= _allowed(states.device)


def blocks_between(states: HiddenStates, blocks: int) -> int:
    """Of every how many blocks the inputs are to be kept, so that they take little enough memory.

    All, or else the square root of the number of blocks: as many are then made again at a time. On
    the disk there is room.

    Args:
        states: as large as the inputs of one block.
        blocks: how many there are.
    """
    kept_on = torch.device("cpu") if states.offload else states.device
    allowed = SMALL if states.placement.saves_memory else free_on_device(kept_on) // 2
    return 1 if states.offload == "disk" else spacing(states.bytes * blocks, blocks, allowed)


def spacing(needed: int, blocks: int, allowed: int) -> int:
    """1 if what the inputs of all blocks need is allowed, else the root of their number."""
    return 1 if needed <= allowed else max(1, math.isqrt(blocks))


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


def _allowed(device: torch.device) -> int:
    """Bytes to take: half of what is free on a GPU; on the CPU no more than `SMALL`."""
    allowed = free_on_device(device) // 2
    return allowed if device.type == "cuda" else min(allowed, SMALL)
