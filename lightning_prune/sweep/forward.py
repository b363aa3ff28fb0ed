"""The forward sweep: block by block, collect evidence, let the caller prune, and go on.

Axes: B sequences, T tokens, I input features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from lightning_prune.anatomy import Block
from lightning_prune.evidence import InputEvidence
from lightning_prune.sweep.placement import on_device
from lightning_prune.sweep.states import HiddenStates

__all__ = ["forward_sweep"]

MakeEvidence = Callable[[int, torch.device], InputEvidence]


def forward_sweep(
    states: HiddenStates,
    evidence: MakeEvidence,
    blocks: Collection[int],
    propagation: str = "pruned",
) -> Iterator[tuple[Block, dict[str, Any]]]:
    """Yield each wanted block, on the device, with what was collected at its inputs.

    The caller may change the block before it asks for the next one.

    Args:
        states: the calibration set in front of block 0.
        evidence: makes the accumulator for an input of a width, e.g. `InputNorm`.
        blocks: indices of the blocks to yield; the others are only run through.
        propagation: "pruned" runs every block twice, to collect and then, changed, to feed the
            next one (Wanda, SparseGPT); "dense" runs it once, and later blocks see none of the
            changes (FLAP, CFSP).

    Yields:
        The block and the results of its evidence, by the name of the input (`Block.inputs`).
    """
    last = max(blocks)
    for block in states.anatomy.blocks[: last + 1]:
        with on_device([block.module], states.device):
            if block.index not in blocks:
                states.advance(block)
                continue
            collected = {
                name: evidence(sites[0].module.in_features, states.device)
                for name, sites in block.inputs().items()
            }
            dense = propagation == "dense"
            _collect(states, block, collected, keep_outputs=dense)
            for one in collected.values():
                one.reduce()
            yield block, {name: one.result() for name, one in collected.items()}
            if not dense and block.index != last:
                states.advance(block)


@torch.no_grad()
def _collect(
    states: HiddenStates, block: Block, collected: dict[str, InputEvidence], keep_outputs: bool
) -> None:
    """One pass of every batch through a block, with evidence listening at its inputs."""
    for i, hidden in enumerate(states.hidden):
        hidden = hidden.to(states.device)
        with _listening(block, collected, hidden.shape[:2], states.keep(i)):
            output = states.run(block, i, hidden)
        if keep_outputs:
            states.hidden[i] = output.to(states.store)


@contextmanager
def _listening(
    block: Block,
    collected: dict[str, InputEvidence],
    shape_BT: torch.Size,
    keep_BT: torch.Tensor | None,
) -> Iterator[None]:
    """Hooks on the first site of every input; they are gone when the block is left."""

    def hook(one: InputEvidence) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def update(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            # Some families (OPT) flatten batch and time before the MLP.
            one.update(inputs[0].reshape(*shape_BT, -1), keep_BT)

        return update

    with ExitStack() as hooks:
        for name, sites in block.inputs().items():
            handle = sites[0].module.register_forward_pre_hook(hook(collected[name]))
            hooks.callback(handle.remove)
        yield
