"""The gradient sweep: gradients of every weight, one block's at a time.

The blocks' inputs are kept from one forward pass; then each block, from the last to the first, is
run again with the gradient of its output, which gives the gradients of its weights and of its
input. The gradients of one block are complete, over the whole calibration set, before the next
block's begin, so nothing of the whole model's size is ever held but the inputs of the blocks.

Axes: B sequences, T tokens, D hidden size, O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from lightning_prune import distributed
from lightning_prune.anatomy import Block
from lightning_prune.evidence import GradientEvidence
from lightning_prune.sweep.placement import on_device
from lightning_prune.sweep.states import HiddenStates, labels_of

__all__ = ["gradient_sweep"]


def gradient_sweep(
    states: HiddenStates, evidence: type[GradientEvidence], blocks: Sequence[Block]
) -> Iterator[tuple[Block, dict[str, GradientEvidence]]]:
    """Yield each wanted block, from the last to the first, with the evidence of its weights.

    The loss is the mean cross entropy of the next token over all counted tokens of all processes.
    The caller must not change a block before the sweep is over.

    Args:
        states: the calibration set in front of block 0.
        evidence: makes the accumulator of a weight, `GradientEvidence` or a class of it.
        blocks: the blocks to yield, with the sites that matter.

    Yields:
        The block and its evidence by weight name, which is gone when the next block is asked for.

    Raises:
        ValueError: no token is left to predict.
    """
    total = _predicted(states)
    wanted = {block.index: block for block in blocks}
    first = min(wanted)
    inputs = _inputs_of_blocks(states, first)
    upstream_BTD = _head_gradients(states)
    weight_B = _own_loss_weights(states) if evidence.squares else None
    for own in reversed(states.anatomy.blocks[first:]):
        block = wanted.get(own.index)
        with on_device([own.module], states.device):
            collected = {
                site.weight_name: evidence(site.module.weight)
                for site in (block.sites if block is not None else ())
            }
            for i, hidden in enumerate(inputs[own.index]):
                own_B = weight_B[i] if weight_B is not None else None
                with _listening(own, collected, own_B):
                    upstream_BTD[i] = _backward(states, own, i, hidden, upstream_BTD[i])
            inputs[own.index].clear()
            if block is not None:
                for one in collected.values():
                    one.reduce(total)
                yield block, collected
                collected.clear()  # or the caller's name for it keeps it through the next block


def _predicted(states: HiddenStates) -> int:
    total = int(distributed.sum_(torch.tensor(states.predicted())))
    if total == 0:
        raise ValueError(
            "the calibration batches ask for no token: every label is -100 or padding, or the "
            "windows are one token long. Gradients need at least two tokens in a row."
        )
    return total


def _inputs_of_blocks(states: HiddenStates, first: int) -> list[list[torch.Tensor]]:
    """What stands in front of every block, kept from block `first` on."""
    inputs = []
    for block in states.anatomy.blocks:
        inputs.append(list(states.hidden) if block.index >= first else [])
        with on_device([block.module], states.device):
            states.advance(block)
    return inputs


def _head_gradients(states: HiddenStates) -> list[torch.Tensor]:
    """The gradient of the summed loss with respect to the last block's output, batch by batch.

    Not of the mean: divided by a hundred thousand tokens it would vanish in float16.
    """
    gradients = []
    with states.outside_on_device(), torch.enable_grad():
        for i, hidden in enumerate(states.hidden):
            hidden = hidden.to(states.device).detach().requires_grad_()
            loss = states.losses(i, hidden).sum()
            gradients.append(torch.autograd.grad(loss, hidden)[0].to(states.store))
    return gradients


def _own_loss_weights(states: HiddenStates) -> list[torch.Tensor]:
    """What makes a sequence's summed loss its mean loss; 0 if nothing is predicted in it."""
    counts = [(labels_of(batch)[:, 1:] != -100).sum(dim=1) for batch in states.batches]
    return [((count_B > 0) / count_B.clamp(min=1)).to(states.device) for count_B in counts]


def _backward(
    states: HiddenStates, block: Block, index: int, hidden: torch.Tensor, upstream: torch.Tensor
) -> torch.Tensor:
    hidden = hidden.to(states.device).detach().requires_grad_()
    with torch.enable_grad():
        output = states.run(block, index, hidden)
    return torch.autograd.grad(output, hidden, upstream.to(states.device))[0].to(states.store)


@contextmanager
def _listening(
    block: Block, evidence: dict[str, GradientEvidence], own_B: torch.Tensor | None
) -> Iterator[None]:
    """Take each site's weight gradient from its input and its output's gradient.

    Autograd only carries the gradients of activations; the weights need not require any.
    """

    def hook(
        one: GradientEvidence,
    ) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def listen(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            input_BTI = inputs[0].detach()
            output.register_hook(lambda gradient: _add(one, gradient, input_BTI, own_B))

        return listen

    with ExitStack() as hooks:
        for site in block.sites:
            if site.weight_name in evidence:
                handle = site.module.register_forward_hook(hook(evidence[site.weight_name]))
                hooks.callback(handle.remove)
        yield


@torch.no_grad()
def _add(
    one: GradientEvidence,
    gradient_BTO: torch.Tensor,
    input_BTI: torch.Tensor,
    own_B: torch.Tensor | None,
) -> None:
    gradient, inputs = gradient_BTO.float(), input_BTI.float()
    if own_B is None:
        one.update(gradient.flatten(0, -2).mT @ inputs.flatten(0, -2))
        return
    sequences = own_B.numel()
    for own, gradient_TO, input_TI in zip(
        own_B,
        gradient.reshape(sequences, -1, gradient.shape[-1]),
        inputs.reshape(sequences, -1, inputs.shape[-1]),
        strict=True,
    ):
        sequence_OI = gradient_TO.mT @ input_TI
        one.update(sequence_OI)
        if own > 0:
            one.update_square(sequence_OI * own)
