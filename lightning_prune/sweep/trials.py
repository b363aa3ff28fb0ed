"""Trials on the dense model: what a block's output loses when one of its sites is changed.

Axes: B sequences, T tokens, D hidden size, O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch

from lightning_prune import distributed
from lightning_prune.anatomy import Block, Site
from lightning_prune.sweep.forward import MakeEvidence, forward_sweep
from lightning_prune.sweep.states import HiddenStates

__all__ = ["batches_of", "trial_sweep"]


@torch.no_grad()
def trial_sweep(
    states: HiddenStates,
    evidence: MakeEvidence,
    damaged: Callable[[Site, Any], torch.Tensor],
    blocks: Sequence[Block],
    windows: int,
) -> Generator[tuple[Block, list[float]], None, None]:
    """Yield each wanted block with one number a site: its output's squared relative change.

    Only as many batches as hold `windows` windows are run, counted over all processes. `states` is
    behind the last block afterwards.

    Args:
        states: the calibration set in front of block 0.
        evidence: makes the accumulator for an input of a width.
        damaged: a site and the result of its input's evidence to its changed weight, (O, I).
        blocks: the blocks to yield, with the sites to try.
        windows: how many calibration windows to run.
    """
    states.hidden = states.hidden[: batches_of(states, windows)]
    # In this order the states stand in front of the block that is yielded, and go on when it is
    # dense again.
    for block, found in forward_sweep(states, evidence, blocks, "block"):
        dense = [states.run(block, i, x.to(states.device)) for i, x in enumerate(states.hidden)]
        errors = []
        for site in block.sites:
            weight_OI = site.module.weight.clone()
            site.module.weight.copy_(damaged(site, found[site.table.reads]))
            try:
                errors.append(_change(states, block, dense))
            finally:
                site.module.weight.copy_(weight_OI)
        yield block, errors


def batches_of(states: HiddenStates, windows: int) -> int:
    """How many of this process's batches are among the first that hold so many windows."""
    size = max((len(hidden) for hidden in states.hidden), default=1)
    total, world = -(-windows // size), distributed.world_size()
    return len(range(distributed.rank(), total, world))


def _change(states: HiddenStates, block: Block, dense: list[torch.Tensor]) -> float:
    """||changed - dense||² / ||dense||² of a block's outputs, over the tokens that count."""
    sums = torch.zeros(2, dtype=torch.float64, device=states.device)
    for i, (hidden, dense_BTD) in enumerate(zip(states.hidden, dense, strict=True)):
        keep_BT = states.keep(i)
        kept = slice(None) if keep_BT is None else keep_BT
        change_BTD = states.run(block, i, hidden.to(states.device)) - dense_BTD
        sums[0] += change_BTD[kept].double().square().sum()
        sums[1] += dense_BTD[kept].double().square().sum()
    distributed.sum_(sums)
    return float(sums[0] / sums[1])
