"""The gradient sweep: gradients of every weight, of the whole model at once or block by block.

*Whole*: each batch runs forward through all blocks and back, once. All blocks are on the device
then, with the activations of one batch in all of them, and the sums of all gradients: the cost of
a training step. *Block by block*: the blocks' inputs are kept from one forward pass; then each
block, from the last to the first, is run again with the gradient of its output, which gives the
gradients of its weights and of its input. That costs one pass forward more, and nothing of the
whole model's size is held but the inputs of the blocks; where these are too much, those of every
√L-th of L blocks, and another pass forward makes the others again. Sweeps over the same model may
share them (`HiddenStates.sharing_inputs`). The numbers are the same.

Either way a block's gradients are complete over the whole calibration set before it is yielded.

Axes: B sequences, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lightning_prune.anatomy import Block
from lightning_prune.evidence import Propagate, WeightEvidence
from lightning_prune.sweep.listening import listening
from lightning_prune.sweep.losses import Loss, Roots, loss_of
from lightning_prune.sweep.memory import blocks_between, fits_whole
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.steps import Steps, handed_over

__all__ = ["gradient_sweep"]


def gradient_sweep(
    states: HiddenStates,
    evidence: WeightEvidence,
    blocks: Sequence[Block],
    propagate: Propagate = "none",
    whole: bool | None = None,
) -> Steps:
    """Yield each wanted block, from the last to the first, with the evidence of its weights.

    The caller must not change a block before the sweep is over.

    Args:
        states: the calibration set.
        evidence: what to collect of each weight, and of which objective.
        blocks: the blocks to yield, with the sites that matter; the head may be one of them.
        propagate: "none": gradients are those of the dense model.
        whole: run the whole model at once, or block by block; None: the whole, if it takes no more
            than half of the memory that is free and nothing is to be offloaded.

    Yields:
        The block and the results by weight name, which are gone when the next block is asked for.

    Raises:
        ValueError: no token is left to predict.
    """
    assert propagate == "none", "gradients are those of the dense model"
    with states.from_start(), evidence.rules(states.anatomy.model):
        loss = loss_of(states, evidence.objective)
        if whole is None:
            whole = fits_whole(loss, evidence, blocks)
        yield from (_whole if whole else _by_block)(loss, evidence, blocks)


def _whole(loss: Loss, kind: WeightEvidence, blocks: Sequence[Block]) -> Steps:
    states, wanted = loss.states, {block.index: block for block in blocks}
    first = min(wanted)
    every = states.anatomy.blocks
    with states.placement.blocks(every), states.placement.outside():
        evidence = {index: _begun(kind, block) for index, block in wanted.items()}
        by_weight = {
            name: accumulator for table in evidence.values() for name, accumulator in table.items()
        }
        for i in states.indices:
            hidden = states.entering(i)
            with torch.no_grad():
                for block in every[:first]:
                    hidden = states.run(block, i, hidden)
            _backward(loss, i, [wanted.get(b.index, b) for b in every[first:]], hidden, by_weight)
        by_weight.clear()
        for index in sorted(wanted, reverse=True):
            yield from _complete(loss, wanted[index], evidence.pop(index))


def _by_block(loss: Loss, kind: WeightEvidence, blocks: Sequence[Block]) -> Steps:
    states, wanted = loss.states, {block.index: block for block in blocks}
    first, last = min(wanted), len(states.anatomy.blocks)
    inputs = _inputs(states, first, last)
    head = wanted.get(len(states.anatomy.blocks))
    with states.placement.outside():
        evidence = _begun(kind, head)
        upstream_BTD = [
            states.kept(_at_head(loss, i, states.entering(i), evidence)) for i in states.indices
        ]
        if head is not None:
            yield from _complete(loss, head, evidence)
    for whole in reversed(states.anatomy.blocks[first:]):
        block = wanted.get(whole.index)
        if whole.index not in inputs:
            start = max(inputs)
            inputs |= _inputs_of_blocks(inputs[start].beside(), start, whole.index)
        with states.placement.block(whole):
            evidence = _begun(kind, block)
            entering = inputs.pop(whole.index)
            for i in states.indices:
                upstream = upstream_BTD[i].to(states.device)
                hidden = entering.entering(i)
                gradient = _backward(loss, i, [block or whole], hidden, evidence, upstream)
                upstream_BTD[i] = states.kept(gradient)
            del entering
            if block is not None:
                yield from _complete(loss, block, evidence)


def _begun(kind: WeightEvidence, block: Block | None) -> dict[str, WeightEvidence]:
    """An accumulator for every weight of a block."""
    sites = block.sites if block is not None else ()
    return {site.weight_name: kind.begin(site.module.weight) for site in sites}


def _complete(loss: Loss, block: Block, evidence: dict[str, WeightEvidence]) -> Steps:
    for accumulator in evidence.values():
        accumulator.complete(loss.total)
    results = {name: evidence.pop(name).result() for name in list(evidence)}
    yield from handed_over(block, results)


def _inputs(states: HiddenStates, first: int, last: int) -> dict[int, HiddenStates]:
    """What stands in front of blocks, made or found; `states` goes behind the last of them.

    Args:
        states: in front of the first block of all.
        first: index of the first block that is wanted.
        last: index of the head.
    """
    shared = states.shared_inputs
    if shared and min(shared) == first:
        inputs = dict(shared)
        states.go_to(inputs.pop(last))
        return inputs
    for block in states.anatomy.blocks[:first]:
        with states.placement.block(block):
            states.advance(block)
    inputs = _inputs_of_blocks(states, first, last, blocks_between(states, last - first))
    if shared is not None:
        shared.clear()
        shared.update(inputs | {last: states.beside()})
    return inputs


def _inputs_of_blocks(
    states: HiddenStates, first: int, last: int, every: int = 1
) -> dict[int, HiddenStates]:
    """What stands in front of blocks, by their index; `states` goes on to the last of them.

    Args:
        states: in front of block `first`.
        first: index of the first block.
        last: index of the last, or of the head.
        every: keep it of every n-th.
    """
    inputs = {}
    for block in states.anatomy.blocks[first:last]:
        if (block.index - first) % every == 0:
            inputs[block.index] = states.beside()
        with states.placement.block(block):
            states.advance(block)
    if last < len(states.anatomy.blocks):
        inputs[last] = states.beside()
    return inputs


def _backward(
    loss: Loss,
    index: int,
    blocks: Sequence[Block],
    hidden: torch.Tensor,
    evidence: Mapping[str, WeightEvidence],
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
    weights = _weights_of_sequences(loss, index, evidence)
    for block in blocks:
        with (
            torch.enable_grad(),
            listening([block], evidence, weights),
            loss.beginning(block, index, roots),
        ):
            output = loss.states.run(block, index, output)
    if upstream is None:
        upstream = _at_head(loss, index, output.detach(), evidence)
    tensors, gradients = zip((output, upstream), *roots, strict=True)
    return torch.autograd.grad(tensors, hidden, gradients)[0]


def _at_head(
    loss: Loss, index: int, hidden: torch.Tensor, evidence: Mapping[str, WeightEvidence]
) -> torch.Tensor:
    weights = _weights_of_sequences(loss, index, evidence)
    with listening([loss.states.anatomy.head], evidence, weights):
        return loss.at_head(index, hidden)


def _weights_of_sequences(
    loss: Loss, index: int, evidence: Mapping[str, WeightEvidence]
) -> list[float] | None:
    """What makes the gradient of each sequence that of its own mean, where that is wanted."""
    if not any(accumulator.by_sequence for accumulator in evidence.values()):
        return None
    return loss.weight_B(index).tolist()
