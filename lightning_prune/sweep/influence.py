"""How much blocks, or their attention or MLP alone, change what passes through them.

Axes: B sequences, T tokens, D hidden size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import nn

from lightning_prune.anatomy import Block
from lightning_prune.evidence import BlockEvidence, Propagate
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.sweep.steps import Steps

__all__ = ["influence_sweep", "without"]


READERS = {"attention": "query", "mlp": "neuron"}
"""Role of the columns of the Linear through which a part speaks to the residual stream."""


@torch.no_grad()
def influence_sweep(
    states: HiddenStates,
    evidence: BlockEvidence,
    blocks: Sequence[Block],
    propagate: Propagate = "none",
) -> Steps:
    """Yield each wanted block with the influence of what begins there, from the first to the last.

    One forward pass; for a part of a block another one in which the other part is silent: what
    the attention does is the block without its MLP, what the MLP does lies between that and the
    block.

    Args:
        states: the calibration set.
        evidence: what is measured, e.g. `Cosine()`. Of a span of blocks, those with fewer behind
            them are not yielded, and as many sets of hidden states are held.
        blocks: the blocks to yield.
        propagate: "none": the influence is that in the dense model.
    """
    assert propagate == "none", "influence is that of blocks of the dense model"
    states.anatomy.check_removable()
    wanted, span, part = {block.index for block in blocks}, evidence.span, evidence.part
    before: deque[tuple[Block, HiddenStates]] = deque(maxlen=span)
    with states.from_start():
        for block in states.anatomy.blocks[: max(wanted) + span]:
            before.append((block, states.beside()))
            with states.placement.block(block):
                middle = states.beside()
                if part != "block":
                    with without(block, "mlp"):
                        middle.advance(block)
                states.advance(block)
            first, entering = before[0]
            if len(before) == span and first.index in wanted:
                start = middle if part == "mlp" else entering
                end = middle if part == "attention" else states
                influence = _value(evidence, start, end)
                with states.placement.block(first):
                    yield first, {"block": influence}


def _value(evidence: BlockEvidence, before: HiddenStates, after: HiddenStates) -> float:
    accumulator = evidence.begin(before.device)
    for i in before.indices:
        accumulator.update(before.entering(i), after.entering(i), before.keep(i))
    accumulator.reduce()
    return accumulator.result()


@contextmanager
def without(block: Block, part: Literal["attention", "mlp"]) -> Iterator[None]:
    """Context in which a part of a block adds nothing to the residual stream but its bias.

    As where it is taken out: a bias belongs to no unit. Without one, what the Linear behind the
    part gives is zero, and so is what a norm behind that makes of it.
    """

    def silent(linear: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        assert isinstance(linear, nn.Linear)
        nothing = torch.zeros_like(output)
        return nothing if linear.bias is None else nothing + linear.bias

    with ExitStack() as hooks:
        for site in block.sites:
            if site.table.columns == READERS[part]:
                hooks.callback(site.module.register_forward_hook(silent).remove)
        yield
