"""The gradient sweep: gradients of every weight, of the whole model at once or block by block.

*Whole*: each batch runs forward through all blocks and back, once. All blocks are on the device
then, with the activations of one batch in all of them, and the sums of all gradients: the cost of
a training step. *Block by block*: the blocks' inputs are kept from one forward pass; then each
block, from the last to the first, is run again with the gradient of its output, which gives the
gradients of its weights and of its input. That costs one pass forward more, and nothing of the
whole model's size is held but the inputs of the blocks. The numbers are the same.

Either way a block's gradients are complete over the whole calibration set before it is yielded.

Axes: B sequences, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from lightning_prune.anatomy import Block
from lightning_prune.evidence import GradientEvidence
from lightning_prune.evidence.objective import NextToken, Objective
from lightning_prune.sweep.listening import listening
from lightning_prune.sweep.losses import Loss, Roots, loss_of
from lightning_prune.sweep.placement import on_device
from lightning_prune.sweep.room import fits_whole
from lightning_prune.sweep.states import HiddenStates

__all__ = ["gradient_sweep"]

Found = Iterator[tuple[Block, dict[str, GradientEvidence]]]


def gradient_sweep(
    states: HiddenStates,
    evidence: type[GradientEvidence],
    blocks: Sequence[Block],
    objective: Objective | None = None,
    whole: bool | None = None,
) -> Found:
    """Yield each wanted block, from the last to the first, with the evidence of its weights.

    The caller must not change a block before the sweep is over. Where `states` stand then is not
    said; rewind them before they are used again.

    Args:
        states: the calibration set in front of block 0.
        evidence: makes the accumulator of a weight, `GradientEvidence` or a class of it.
        blocks: the blocks to yield, with the sites that matter; the head may be one of them.
        objective: of what gradients are taken; None: `NextToken()`, the mean cross entropy of the
            next token over all counted tokens of all processes.
        whole: run the whole model at once, or block by block; None: the whole, if it takes no more
            than half of the memory that is free and nothing is to be offloaded.

    Yields:
        The block and its evidence by weight name, which is gone when the next block is asked for.

    Raises:
        ValueError: no token is left to predict.
    """
    loss = loss_of(states, objective or NextToken())
    if whole is None:
        whole = fits_whole(loss, evidence, blocks)
    return (_whole if whole else _by_block)(loss, evidence, blocks)


def _whole(loss: Loss, kind: type[GradientEvidence], blocks: Sequence[Block]) -> Found:
    states, wanted = loss.states, {block.index: block for block in blocks}
    first = min(wanted)
    every = states.anatomy.blocks
    with on_device([block.module for block in every], states.device), states.outside_on_device():
        evidence = {index: _evidence(kind, block) for index, block in wanted.items()}
        listened = {name: one for own in evidence.values() for name, one in own.items()}
        for i, hidden in enumerate(states.hidden):
            hidden = hidden.to(states.device)
            with torch.no_grad():
                for block in every[:first]:
                    hidden = states.run(block, i, hidden)
            _backward(loss, i, [wanted.get(b.index, b) for b in every[first:]], hidden, listened)
        listened.clear()
        for index in sorted(wanted, reverse=True):
            yield from _complete(loss, wanted[index], evidence.pop(index))


def _by_block(loss: Loss, kind: type[GradientEvidence], blocks: Sequence[Block]) -> Found:
    states, wanted = loss.states, {block.index: block for block in blocks}
    first = min(wanted)
    inputs = _inputs_of_blocks(states, first)
    head = wanted.get(len(states.anatomy.blocks))
    with states.outside_on_device():
        evidence = _evidence(kind, head)
        upstream_BTD = [
            _at_head(loss, i, hidden.to(states.device), evidence).to(states.store)
            for i, hidden in enumerate(states.hidden)
        ]
        if head is not None:
            yield from _complete(loss, head, evidence)
    for own in reversed(states.anatomy.blocks[first:]):
        block = wanted.get(own.index)
        with on_device([own.module], states.device):
            evidence = _evidence(kind, block)
            for i, hidden in enumerate(inputs[own.index]):
                upstream = upstream_BTD[i].to(states.device)
                hidden = hidden.to(states.device)
                found = _backward(loss, i, [block or own], hidden, evidence, upstream)
                upstream_BTD[i] = found.to(states.store)
            inputs[own.index].clear()
            if block is not None:
                yield from _complete(loss, block, evidence)


def _evidence(kind: type[GradientEvidence], block: Block | None) -> dict[str, GradientEvidence]:
    sites = block.sites if block is not None else ()
    return {site.weight_name: kind(site.module.weight) for site in sites}


def _complete(loss: Loss, block: Block, evidence: dict[str, GradientEvidence]) -> Found:
    for one in evidence.values():
        one.reduce(loss.total)
    yield block, evidence
    evidence.clear()  # or the caller's name for it keeps it through the next block


def _inputs_of_blocks(states: HiddenStates, first: int) -> list[list[torch.Tensor]]:
    """What stands in front of every block, kept from block `first` on."""
    inputs = []
    for block in states.anatomy.blocks:
        inputs.append(list(states.hidden) if block.index >= first else [])
        with on_device([block.module], states.device):
            states.advance(block)
    return inputs


def _backward(
    loss: Loss,
    index: int,
    blocks: Sequence[Block],
    hidden: torch.Tensor,
    evidence: Mapping[str, GradientEvidence],
    upstream: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run a batch through blocks and back, and return the gradient in front of them.

    Args:
        loss: the objective.
        index: of the batch.
        blocks: one behind the other.
        hidden: what stands in front of them.
        evidence: what to feed, by weight name.
        upstream: the gradient behind the blocks; None: behind them is the head.
    """
    hidden = hidden.detach().requires_grad_()
    output, roots = hidden, Roots()
    own_B = _own_weights(loss, index, evidence)
    for block in blocks:
        with (
            torch.enable_grad(),
            listening([block], evidence, own_B),
            loss.beginning(block, index, roots),
        ):
            output = loss.states.run(block, index, output)
    if upstream is None:
        upstream = _at_head(loss, index, output.detach(), evidence)
    tensors, gradients = zip((output, upstream), *roots, strict=True)
    return torch.autograd.grad(tensors, hidden, gradients)[0]


def _at_head(
    loss: Loss, index: int, hidden: torch.Tensor, evidence: Mapping[str, GradientEvidence]
) -> torch.Tensor:
    own_B = _own_weights(loss, index, evidence)
    with listening([loss.states.anatomy.head], evidence, own_B):
        return loss.at_head(index, hidden)


def _own_weights(
    loss: Loss, index: int, evidence: Mapping[str, GradientEvidence]
) -> torch.Tensor | None:
    if not any(one.squares for one in evidence.values()):
        return None
    return loss.weight_B(index).to(loss.states.device)
