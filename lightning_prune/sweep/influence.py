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
from lightning_prune.evidence import BlockEvidence
from lightning_prune.sweep.placement import on_device
from lightning_prune.sweep.states import HiddenStates

__all__ = ["Part", "influence_sweep", "without"]

Part = Literal["block", "attention", "mlp"]

READERS = {"attention": "query", "mlp": "neuron"}
"""Role of the columns of the Linear through which a part speaks to the residual stream."""


@torch.no_grad()
def influence_sweep(
    states: HiddenStates,
    evidence: type[BlockEvidence],
    blocks: Sequence[Block],
    span: int = 1,
    part: Part = "block",
) -> Iterator[tuple[Block, float]]:
    """Yield each wanted block with the influence of what begins there, from the first to the last.

    One forward pass; for a part of a block another one in which the other part is silent: what
    the attention does is the block without its MLP, what the MLP does lies between that and the
    block.

    Args:
        states: the calibration set in front of block 0; behind the last block afterwards.
        evidence: what is measured, e.g. `Cosine`.
        blocks: the blocks to yield.
        span: how many consecutive blocks are taken as one; blocks with fewer behind them are not
            yielded. That many sets of hidden states are held.
        part: "block", or its "attention" or "mlp" alone, with a span of 1.
    """
    assert span == 1 or part == "block", "parts are measured one at a time"
    wanted = {block.index for block in blocks}
    before: deque[tuple[Block, list[torch.Tensor]]] = deque(maxlen=span)
    for own in states.anatomy.blocks[: max(wanted) + span]:
        with on_device([own.module], states.device):
            start = list(states.hidden)
            before.append((own, start))
            if part != "block":
                with without(own, "mlp"):
                    middle = list(start)
                    states.advance(own, middle)
            states.advance(own)
        first, entered = before[0]
        if len(before) < span or first.index not in wanted:
            continue
        if part == "mlp":
            entered = middle
        left = middle if part == "attention" else states.hidden
        yield first, _value(states, evidence, entered, left)


def _value(
    states: HiddenStates,
    evidence: type[BlockEvidence],
    before: Sequence[torch.Tensor],
    after: Sequence[torch.Tensor],
) -> float:
    one = evidence(states.store)
    for i, (before_BTD, after_BTD) in enumerate(zip(before, after, strict=True)):
        keep_BT = states.keep(i)
        one.update(before_BTD.to(states.device), after_BTD.to(states.device), keep_BT)
    one.reduce()
    return one.result()


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
