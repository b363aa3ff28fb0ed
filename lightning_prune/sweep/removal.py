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
from lightning_prune.sweep.trials import batches_of

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
        windows: how many calibration windows to try on; 0: all.
        part: what to leave out.
    """
    if windows:
        states.hidden = states.hidden[: batches_of(states, windows)]
    every = states.anatomy.blocks
    start = list(states.hidden)
    dense = _perplexity(states, every, list(start))
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
        yield block, _perplexity(states, every[block.index + 1 :], tried) - dense


def _perplexity(states: HiddenStates, blocks: Sequence[Block], hidden: list[torch.Tensor]) -> float:
    """Of the whole calibration windows, from these hidden states on through these blocks."""
    for block in blocks:
        with on_device([block.module], states.device):
            states.advance(block, hidden)
    sums = torch.zeros(2, dtype=torch.float64)
    with states.outside_on_device():
        for i, state in enumerate(hidden):
            sums[0] += states.losses(i, state.to(states.device)).double().sum().cpu()
            sums[1] += (states.targets(i) != -100).sum().cpu()
    distributed.sum_(sums)
    if not sums[1]:
        raise ValueError("the calibration windows ask for no token; use windows of two or more")
    return float((sums[0] / sums[1]).exp())
