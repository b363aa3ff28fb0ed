"""What the loss rises by when a block, or its attention or MLP, is left out.

Axes: B sequences, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lightning_prune import distributed
from lightning_prune.anatomy import Block
from lightning_prune.sweep.influence import Part, without
from lightning_prune.sweep.placement import on_device
from lightning_prune.sweep.states import HiddenStates

__all__ = ["removal_sweep"]


@torch.no_grad()
def removal_sweep(
    states: HiddenStates, blocks: Sequence[Block], windows: int = 0, part: Part = "block"
) -> Iterator[tuple[Block, float]]:
    """Yield each wanted block with the rise of the perplexity without it, first to last.

    Each trial starts from the hidden states in front of the block, so all of them cost about half
    as many forward passes, over the windows tried, as there are blocks.

    Args:
        states: the calibration set in front of block 0; in front of the last wanted block
            afterwards, and with the batches that were tried only.
        blocks: the blocks to leave out, one after the other.
        windows: how many calibration windows to try on, the first ones however they are batched;
            0: all.
        part: what to leave out.

    Raises:
        ValueError: the windows ask for no token.
    """
    counts = _counted(states, windows)
    states.hidden = states.hidden[: len(counts)]
    every = states.anatomy.blocks
    dense = _perplexity(states, every, list(states.hidden), counts)
    at = 0
    for block in sorted(blocks, key=lambda b: b.index):
        for own in every[at : block.index]:
            with on_device([own.module], states.device):
                states.advance(own)
        at = block.index
        tried = list(states.hidden)
        own = every[block.index]
        if part != "block":
            with on_device([own.module], states.device), without(own, part):
                states.advance(own, tried)
        yield block, _perplexity(states, every[block.index + 1 :], tried, counts) - dense


def _counted(states: HiddenStates, windows: int) -> list[int]:
    """How many sequences count of each of this process's batches, as far as any do.

    Every process has every n-th batch, and all batches but the last are of one size.
    """
    sizes = [len(hidden) for hidden in states.hidden]
    if not windows:
        return sizes
    rank, world = distributed.rank(), distributed.world_size()
    largest_W = torch.zeros(world, dtype=torch.long)
    largest_W[rank] = max(sizes, default=0)
    largest = int(distributed.sum_(largest_W).max())
    left = [windows - largest * (rank + world * i) for i in range(len(sizes))]
    return [min(size, more) for size, more in zip(sizes, left, strict=True) if more > 0]


def _perplexity(
    states: HiddenStates, blocks: Sequence[Block], hidden: list[torch.Tensor], counts: Sequence[int]
) -> float:
    """Of the sequences that count, from these hidden states on through these blocks."""
    for block in blocks:
        with on_device([block.module], states.device):
            states.advance(block, hidden)
    sums = torch.zeros(2, dtype=torch.float64)
    with states.outside_on_device():
        for i, (state, count) in enumerate(zip(hidden, counts, strict=True)):
            loss_BT = states.losses(i, state.to(states.device))
            sums[0] += loss_BT[:count].double().sum().cpu()
            sums[1] += (states.targets(i)[:count] != -100).sum().cpu()
    distributed.sum_(sums)
    if not sums[1]:
        raise ValueError("the calibration windows ask for no token; use windows of two or more")
    return float((sums[0] / sums[1]).exp())
