"""The forward sweep: block by block, collect evidence, let the caller prune, and go on.

Axes: B sequences, T tokens, I input features.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import nn

from lightning_prune.anatomy import Block
from lightning_prune.evidence import CrossGram, InputEvidence
from lightning_prune.sweep.linear import linear_steps, paired_steps
from lightning_prune.sweep.placement import on_device
from lightning_prune.sweep.states import HiddenStates

__all__ = ["MakeEvidence", "Order", "forward_sweep"]

MakeEvidence = Callable[[int, torch.device], InputEvidence]
Order = Literal["block", "linear", "none"]


def forward_sweep(
    states: HiddenStates, evidence: MakeEvidence, blocks: Sequence[Block], order: Order = "block"
) -> Generator[tuple[Block, dict[str, Any]], None, None]:
    """Yield each wanted block, on the device, with what was collected at its inputs.

    The caller may change the sites of what was yielded before it asks for the next.

    Args:
        states: the calibration set in front of block 0.
        evidence: makes the accumulator for an input of a width, e.g. `InputNorm`.
        blocks: the blocks to yield, with the sites that matter; the others are only run through.
        order: what the evidence of a site sees of the changes before it.
            "block": the changes of earlier blocks. Every block runs twice: to collect, and then,
            changed, to feed the next one. (Wanda, SparseGPT)
            "linear": the changes of all sites that run earlier. Every block runs once, stopped at
            each input; the block is yielded once an input, with the sites that read it. The
            activations of one block are held for the whole calibration set.
            (true-sequential SparseGPT) With `CrossGram` evidence the dense model runs beside it.
            "none": no changes; the dense model. Every block runs once. (FLAP, CFSP)

    Yields:
        The block and the results of its evidence, by the name of the input (`Block.inputs`).
    """
    wanted = {block.index: block for block in blocks}
    last = max(wanted)
    paired = _paired(evidence)
    assert order == "linear" or not paired, "the dense model runs beside the other input by input"
    dense_hidden = list(states.hidden)
    visited = states.anatomy.blocks[: last + 1]
    if last == len(states.anatomy.blocks):  # a model that is no language model may have no head
        visited.append(states.anatomy.head)
    for own in visited:
        block = wanted.get(own.index)
        with on_device(states.modules(own), states.device):
            feeds = own.index != last
            if block is None:
                states.advance(own)
                if paired:
                    states.advance(own, dense_hidden)
            elif paired:
                yield from paired_steps(states, dense_hidden, block, paired, feeds)
            elif order == "linear" and own.index < len(states.anatomy.blocks):  # not the head
                yield from linear_steps(states, block, evidence, feeds)
            else:
                yield from _one_step(states, block, evidence, order, feeds)


def _paired(evidence: MakeEvidence) -> type[CrossGram] | None:
    """The evidence, if it is of a kind that needs the dense model too."""
    return evidence if isinstance(evidence, type) and issubclass(evidence, CrossGram) else None


def _one_step(
    states: HiddenStates, block: Block, evidence: MakeEvidence, order: Order, feeds: bool
) -> Iterator[tuple[Block, dict[str, Any]]]:
    """Collect at all inputs of a block, yield it, and feed the next one."""
    collected = {
        name: evidence(sites[0].module.in_features, states.store)
        for name, sites in block.inputs().items()
    }
    _collect(states, block, collected, keep_outputs=feeds and order == "none")
    for one in collected.values():
        one.reduce()
    # Popped, so that an accumulator and its result are not held together for all inputs.
    found = {name: collected.pop(name).result() for name in list(collected)}
    yield block, found
    found.clear()  # or the caller's name for it keeps it while the next block's is collected
    if feeds and order == "block":
        states.advance(block)


class _Enough(Exception):
    """Every input of a block has been heard; what comes after is of no use."""


@torch.no_grad()
def _collect(
    states: HiddenStates, block: Block, collected: Mapping[str, InputEvidence], keep_outputs: bool
) -> None:
    """One pass of every batch through a block, with evidence listening at its inputs."""
    for i, hidden in enumerate(states.hidden):
        hidden = hidden.to(states.device)
        try:
            with _listening(block, collected, hidden.shape[:2], states.keep(i), not keep_outputs):
                output = states.run(block, i, hidden)
        except _Enough:
            continue
        if keep_outputs:
            states.hidden[i] = output.to(states.store)


@contextmanager
def _listening(
    block: Block,
    collected: Mapping[str, InputEvidence],
    shape_BT: torch.Size,
    keep_BT: torch.Tensor | None,
    stop: bool,
) -> Iterator[None]:
    """Hooks on the first site of every input; they are gone when the block is left.

    With `stop`, the block is left as soon as the last input has been heard.
    """
    silent = set(collected)

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def update(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            # Some families (OPT) flatten batch and time before the MLP.
            collected[name].update(inputs[0].reshape(*shape_BT, -1), keep_BT)
            silent.discard(name)
            if stop and not silent:
                raise _Enough

        return update

    with ExitStack() as hooks:
        for name, sites in block.inputs().items():
            handle = sites[0].module.register_forward_pre_hook(hook(name))
            hooks.callback(handle.remove)
        yield
