"""True-sequential pruning in one forward pass, alone or beside the dense model.

Every batch waits at every input of a block. When all have come to one, its evidence is complete,
the caller changes the sites that read it, and all go on, through the changed sites, to the next.

Axes: B sequences, T tokens, D hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from lightning_prune.anatomy import Block
from lightning_prune.evidence import CrossGram
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.waiting import Waiting

if TYPE_CHECKING:
    from lightning_prune.sweep.forward import MakeEvidence

__all__ = ["linear_steps", "paired_steps"]

Steps = Iterator[tuple[Block, dict[str, Any]]]


def linear_steps(states: HiddenStates, block: Block, evidence: MakeEvidence, finish: bool) -> Steps:
    """Yield a block once an input, with the sites that read it and their evidence.

    Args:
        states: the calibration set in front of the block.
        block: the block, on the device.
        evidence: makes the accumulator for an input of a width.
        finish: bring the states behind the block; otherwise they stay as they were.

    Raises:
        RuntimeError: a batch does not pass some input. Hooks and waiting calls are gone then, as
            after every error.
    """
    batches = range(len(states.hidden))
    with Waiting(states, block, states.hidden) as calls:
        for name, sites in block.inputs().items():
            one = evidence(sites[0].module.in_features, states.store)
            for i in batches:
                one.update(_shaped(calls.until(name, i), states, i), states.keep(i))
            one.reduce()
            found = {name: one.result()}
            del one
            yield block.part(sites), found
            found.clear()  # or the caller's name for it keeps it through the next input
        if finish:
            states.hidden[:] = [calls.output(i).to(states.store) for i in batches]


def paired_steps(
    states: HiddenStates,
    dense_hidden: list[torch.Tensor],
    block: Block,
    evidence: type[CrossGram],
    finish: bool,
) -> Steps:
    """As `linear_steps`, with the dense model's batches waiting at the same inputs.

    Args:
        states: the calibration set in front of the block, in the pruned model.
        dense_hidden: the same in the dense model; brought behind the block with `finish`.
        block: the block, on the device, dense until now.
        evidence: makes the accumulator for an input of a width.
        finish: bring both behind the block.
    """
    batches = range(len(states.hidden))
    whole = states.anatomy.blocks[block.index]
    dense = replace(whole, module=copy.deepcopy(block.module))
    dense = dense.part(block.sites_in(dense.module))
    paths = [site.table.path for site in whole.sites if site.table.adds]
    error = [_residual_error(states, dense_hidden, i) for i in batches]
    with (
        Waiting(
            states, block, states.hidden, [block.module.get_submodule(p) for p in paths]
        ) as own,
        Waiting(
            states, dense, dense_hidden, [dense.module.get_submodule(p) for p in paths]
        ) as other,
    ):
        for name, sites in block.inputs().items():
            site = sites[0]
            width, adds = site.module.in_features, site.module.out_features * site.table.adds
            one = evidence(width, states.store, adds)
            for i in batches:
                arrived, expected = own.until(name, i), other.until(name, i)
                mine, theirs = own.added(i), other.added(i)
                if mine is not None and theirs is not None:
                    error[i] += (theirs - mine).view_as(error[i]).to(states.store)
                one.update_pair(
                    _shaped(arrived, states, i),
                    _shaped(expected, states, i),
                    error[i].to(states.device) if adds else None,
                    states.keep(i),
                )
                del arrived, expected
            one.reduce()
            found = {name: one.result()}
            del one
            yield block.part(sites), found
            found.clear()  # or the caller's name for it keeps it through the next input
        if finish:
            states.hidden[:] = [own.output(i).to(states.store) for i in batches]
            dense_hidden[:] = [other.output(i).to(states.store) for i in batches]


def _residual_error(
    states: HiddenStates, dense_hidden: list[torch.Tensor], index: int
) -> torch.Tensor:
    return dense_hidden[index] - states.hidden[index]


def _shaped(input_: torch.Tensor, states: HiddenStates, index: int) -> torch.Tensor:
    """An input as (B, T, I): some families (OPT) flatten batch and time before the MLP."""
    return input_.reshape(*states.hidden[index].shape[:2], -1)
