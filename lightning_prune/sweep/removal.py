"""What the loss rises by when a block, or its attention or MLP, is left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_prune import distributed
from lightning_prune.anatomy import Block
from lightning_prune.evidence import Propagate, Removal
from lightning_prune.sweep.influence import without
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.steps import Steps
from lightning_prune.tokens import IGNORED

__all__ = ["removal_sweep"]


@torch.no_grad()
def removal_sweep(
    states: HiddenStates,
    evidence: Removal,
    blocks: Sequence[Block],
    propagate: Propagate = "none",
) -> Steps:
    """Yield each wanted block with the rise of the perplexity without it, first to last.

    Each trial starts from the hidden states in front of the block, so all of them cost about half
    as many forward passes, over the windows tried, as there are blocks.

    Args:
        states: the calibration set.
        evidence: what to leave out, and on how many calibration windows to try it: on the first
            ones, however they are batched.
        blocks: the blocks to leave out, one after the other.
        propagate: "none": of the dense model.

    Raises:
        ValueError: the windows ask for no token.
    """
    assert propagate == "none", "blocks are left out of the dense model"
    if evidence.part == "block":
        states.anatomy.check_removable()
    every = states.anatomy.blocks
    with states.from_start(evidence.windows):
        counts = _counted(states, evidence.windows)
        dense = _perplexity(states.beside(), every, counts)
        at = 0
        for block in sorted(blocks, key=lambda b: b.index):
            for earlier in every[at : block.index]:
                with states.placement.block(earlier):
                    states.advance(earlier)
            at = block.index
            tried, whole = states.beside(), every[block.index]
            if evidence.part != "block":
                with states.placement.block(whole), without(whole, evidence.part):
                    tried.advance(whole)
            without_it = _perplexity(tried, every[block.index + 1 :], counts)
            with states.placement.block(whole):
                yield block, {"block": without_it - dense}


def _counted(states: HiddenStates, windows: int) -> list[int]:
    """How many members count of each batch that is tried.

    Every process has every n-th batch, and all batches but the last are of one size.
    """
    sizes = [states.members(i) for i in states.indices]
    if not windows:
        return sizes
    rank, world = distributed.rank(), distributed.world_size()
    largest_W = torch.zeros(world, dtype=torch.long)
    largest_W[rank] = max(sizes, default=0)
    largest = int(distributed.sum_(largest_W).max())
    left = [windows - largest * (rank + world * i) for i in range(len(sizes))]
    return [max(min(size, more), 0) for size, more in zip(sizes, left, strict=True)]


def _perplexity(states: HiddenStates, blocks: Sequence[Block], counts: Sequence[int]) -> float:
    """Of the members that count, from where the states stand on through these blocks."""
    for block in blocks:
        with states.placement.block(block):
            states.advance(block)
    sums = torch.zeros(2, dtype=torch.float64)
    with states.placement.outside():
        for i, count in zip(states.indices, counts, strict=True):
            losses = states.losses(i, states.entering(i))
            sums[0] += losses[:count].double().sum().cpu()
            sums[1] += (states.targets(i)[:count] != IGNORED).sum().cpu()
    distributed.sum_(sums)
    if not sums[1]:
        raise ValueError("the calibration windows ask for no token; use windows of two or more")
    return float((sums[0] / sums[1]).exp())
