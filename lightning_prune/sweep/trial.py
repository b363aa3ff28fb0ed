"""Trials on the dense model: what a block's output loses when one of its Linears is changed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import torch

from lightning_prune import distributed
from lightning_prune.anatomy import Block
from lightning_prune.evidence import Propagate, Trial, moved
from lightning_prune.sweep.forward import forward_sweep
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.steps import Steps

__all__ = ["trial_sweep"]


@torch.no_grad()
def trial_sweep(
    states: HiddenStates,
    evidence: Trial,
    blocks: Sequence[Block],
    propagate: Propagate = "none",
) -> Steps:
    """Yield each wanted block with its output's squared relative change, by Linear.

    Args:
        states: the calibration set.
        evidence: what is changed, and on how many calibration windows.
        blocks: the blocks to yield, with the sites to try.
        propagate: "none": each is changed alone, in the dense model.
    """
    assert propagate == "none", "trials are made on the dense model"
    # By block, the states stand in front of the block that is yielded, and go on when it is dense
    # again.
    sweep = forward_sweep(states, evidence.inputs, blocks, "block", evidence.windows)
    with closing(sweep) as steps:  # type: ignore[type-var]
        for block, inputs in steps:
            dense = [states.run(block, i, states.entering(i)) for i in states.indices]
            changes: dict[str, float] = {}
            for site in block.sites:
                weight_OI = site.module.weight.clone()
                collected = moved(inputs[site.table.reads], states.device)
                site.module.weight.copy_(evidence.changed(site, collected))
                try:
                    changes[site.name] = _change(states, block, dense)
                finally:
                    site.module.weight.copy_(weight_OI)
            yield block, changes


def _change(states: HiddenStates, block: Block, dense: list[torch.Tensor]) -> float:
    """||changed - dense||² / ||dense||² of a token's output, mean over the tokens that count.

    Not the ratio of the sums: in a real model a few tokens, the first above all, have outputs so
    large that the others would not show.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=states.device)
    for i, dense_BTD in zip(states.indices, dense, strict=True):
        keep_BT = states.keep(i)
        kept = slice(None) if keep_BT is None else keep_BT
        change_BTD = states.run(block, i, states.entering(i)) - dense_BTD
        square_N, dense_N = (
            one_BTD[kept].flatten(0, -2).double().square().sum(dim=-1)
            for one_BTD in (change_BTD, dense_BTD)
        )
        share_N = square_N / dense_N.clamp(min=torch.finfo(torch.float32).tiny)
        sums += torch.stack([share_N.sum(), share_N.new_tensor(len(share_N))])
    distributed.sum_(sums)
    return float(sums[0] / sums[1])
