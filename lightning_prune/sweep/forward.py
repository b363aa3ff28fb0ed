"""The forward sweep: block by block, collect evidence, let the caller prune, and go on.

Axes: B sequences, T tokens, I input features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from lightning_prune.anatomy import Block
from lightning_prune.evidence import InputEvidence, Propagate
from lightning_prune.sweep.layer_by_layer import layer_steps
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.steps import Steps, handed_over

__all__ = ["forward_sweep"]


def forward_sweep(
    states: HiddenStates,
    evidence: InputEvidence,
    blocks: Sequence[Block],
    propagate: Propagate = "none",
    windows: int = 0,
    known: Collection[int] = (),
) -> Steps:
    """Yield each wanted block, on the device, with what was collected at its inputs.

    The caller may change the sites of what was yielded before it asks for the next.

    Args:
        states: the calibration set.
        evidence: what to collect, e.g. `InputNorm()`.
        blocks: the blocks to yield, with the sites that matter; the others are only run through.
        propagate: which of the changes made before a site its evidence sees.
            "block": the changes of earlier blocks. Every block runs twice: to collect, and then,
            changed, to feed the next one. (Wanda, SparseGPT)
            "layer": the changes of all sites that run earlier. Every block runs once, stopped at
            each input; the block is yielded once an input, with the sites that read it. The
            activations of one block are held for the whole calibration set.
            (true-sequential SparseGPT)
            "none": no changes; the dense model. Every block runs once. (FLAP, CFSP)
        windows: how many members of the calibration set to take; 0: all.
        known: indices of blocks of which nothing is to be collected: they are yielded whole, with
            nothing, for the caller to change them as it has decided before.

    Yields:
        The block and the results of its evidence, by the name of the input (`Block.inputs`).
    """
    wanted = {block.index: block for block in blocks}
    last = max(wanted)
    anatomy = states.anatomy
    visited = anatomy.blocks[: last + 1]
    if last == len(anatomy.blocks):  # a head is asked for only where one is pruned
        visited = [*visited, anatomy.head]
    with states.from_start(windows):
        for whole in visited:
            block = wanted.get(whole.index)
            with states.placement.block(whole):
                feeds = whole.index != last
                if block is None:
                    states.advance(whole)
                elif whole.index in known:
                    yield from _known_step(states, block, propagate, feeds)
                elif propagate == "layer" and whole.index < len(anatomy.blocks):  # not the head
                    yield from layer_steps(states, block, evidence, feeds)
                else:
                    yield from _block_step(states, block, evidence, propagate, feeds)


def _known_step(states: HiddenStates, block: Block, propagate: Propagate, feeds: bool) -> Steps:
    """Yield a block of which nothing is collected, and feed the next one."""
    if feeds and propagate == "none":
        states.advance(block)
    yield block, {}
    if feeds and propagate != "none":
        states.advance(block)


def _block_step(
    states: HiddenStates, block: Block, evidence: InputEvidence, propagate: Propagate, feeds: bool
) -> Steps:
    """Collect at all inputs of a block, yield it, and feed the next one."""
    accumulators = {
        name: evidence.begin(sites[0].module.in_features, states.device)
        for name, sites in block.inputs().items()
    }
    _collect(states, block, accumulators, keep_outputs=feeds and propagate == "none")
    for accumulator in accumulators.values():
        accumulator.reduce()
    # Popped, so that an accumulator and its result are not held together for all inputs.
    results = {name: accumulators.pop(name).result() for name in list(accumulators)}
    yield from handed_over(block, results)
    if feeds and propagate == "block":
        states.advance(block)


class _Enough(Exception):
    """Every input of a block has been heard; what comes after is of no use."""


@torch.no_grad()
def _collect(
    states: HiddenStates,
    block: Block,
    accumulators: Mapping[str, InputEvidence],
    keep_outputs: bool,
) -> None:
    """One pass of every batch through a block, with evidence listening at its inputs."""
    for i in states.indices:
        hidden = states.entering(i)
        stop = not keep_outputs
        try:
            with _listening(block, accumulators, hidden.shape[:2], states.keep(i), stop):
                output = states.run(block, i, hidden)
        except _Enough:
            continue
        if keep_outputs:
            states.put(i, output)


@contextmanager
def _listening(
    block: Block,
    accumulators: Mapping[str, InputEvidence],
    shape_BT: torch.Size,
    keep_BT: torch.Tensor | None,
    stop: bool,
) -> Iterator[None]:
    """Hooks on the first site of every input; they are gone when the block is left.

    With `stop`, the block is left as soon as the last input has been heard.
    """
    silent = set(accumulators)

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def update(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            # Some families (OPT) flatten batch and time before the MLP, and a classifier's head
            # reads one row an image.
            input_BTI = inputs[0].reshape(shape_BT[0], -1, inputs[0].shape[-1])
            accumulators[name].update(input_BTI, keep_BT)
            silent.discard(name)
            if stop and not silent:
                raise _Enough

        return update

    with ExitStack() as hooks:
        for name, sites in block.inputs().items():
            handle = sites[0].module.register_forward_pre_hook(hook(name))
            hooks.callback(handle.remove)
        yield
