"""Pruning layer by layer in one forward pass: each layer sees the changes of all that run earlier.

Every batch waits at every input of a block. When all have come to one, its evidence is complete,
the caller changes the sites that read it, and all go on, through the changed sites, to the next.

Axes: B sequences, T tokens, I input features.
"""

from __future__ import annotations

import torch

from lightning_prune.anatomy import Block
from lightning_prune.evidence import InputEvidence
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.steps import Steps, handed_over
from lightning_prune.sweep.waiting import Waiting

__all__ = ["layer_steps", "shaped"]


def layer_steps(states: HiddenStates, block: Block, evidence: InputEvidence, feeds: bool) -> Steps:
    """Yield a block once an input, with the sites that read it and their evidence.

    Args:
        states: the calibration set in front of the block.
        block: the block, on the device.
        evidence: what to collect.
        feeds: bring the states behind the block; otherwise they stay as they were.

    Raises:
        RuntimeError: a batch does not pass some input. Hooks and waiting calls are gone then, as
            after every error.
    """
    with Waiting(states, block) as calls:
        for name, sites in block.inputs().items():
            accumulator = evidence.begin(sites[0].module.in_features, states.device)
            for i in states.indices:
                accumulator.update(shaped(calls.until(name, i), states, i), states.keep(i))
            accumulator.reduce()
            results = {name: accumulator.result()}
            del accumulator
            yield from handed_over(block.part(sites), results)
        if feeds:
            for i in states.indices:
                states.put(i, calls.output(i))


def shaped(input_: torch.Tensor, states: HiddenStates, index: int) -> torch.Tensor:
    """An input as (B, T, I): some families (OPT) flatten batch and time before the MLP."""
    return input_.reshape(states.members(index), -1, input_.shape[-1])
