"""The fitting sweep: span by span, train pruned blocks beside the dense model.

Axes: B sequences, T tokens, D hidden size, O output features, I input features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_prune import distributed
from lightning_prune.anatomy import Block
from lightning_prune.repair.block_fit import BlockFit
from lightning_prune.sweep.goals import Goal, Predictions, goal_of
from lightning_prune.sweep.lending import on_device
from lightning_prune.sweep.states import HiddenStates

__all__ = ["Fitted", "fitting_sweep"]

CHECKS = 4
"""How often a span is judged by the windows that are held out."""

Masks = Mapping[str, torch.Tensor]
"""By a parameter's name, True where it is trained, in its shape or one that is broadcast to it;
parameters that are missing are trained whole."""


class Fitted(NamedTuple):
    """What training a span has come to: mean error of a held-out token, and steps."""

    before: float
    after: float
    steps: int


def fitting_sweep(
    states: HiddenStates,
    fit: BlockFit,
    spans: Sequence[Sequence[Block]],
    dense: Callable[[Block], nn.Module],
    masks: Callable[[Block], Masks],
    known: Collection[int] = (),
    stepped: Callable[[Sequence[Block]], None] = lambda span: None,
) -> Generator[tuple[Sequence[Block], Fitted | None], None, None]:
    """Yield each span, on the device, when it is trained.

    Args:
        states: the calibration set.
        fit: how.
        spans: blocks that follow each other, as they are when pruned; no shape has changed yet.
        dense: by block, its module as it was.
        masks: by block, of what was pruned in it.
        known: indices of blocks whose spans are not to be trained: they are yielded with None, for
            the caller to change.
        stepped: called with a span after each of its steps.
    """
    blocks = states.anatomy.blocks
    first, last = spans[0][0].index, spans[-1][-1].index
    behind = blocks[last + 1 :] if fit.to_the_end else ()
    with states.from_start():
        dense_states = states.beside()
        for block in blocks[:first]:
            with states.placement.block(block):
                states.advance(block)
                dense_states.advance(block)
        for span in spans:
            head = states.placement.outside() if fit.to_the_end else nullcontext()
            with states.placement.blocks([*span, *behind]), head:
                if fit.target == "block":
                    dense_states = states.beside()
                for block in span:
                    with on_device([dense(block)], states.device):
                        dense_states.advance(replace(block, module=dense(block)))
                for block in behind:
                    dense_states.advance(block)
                work = _Work(states, goal_of(fit, states, dense_states), span, behind)
                trained = span[0].index not in known
                yield span, _trained(work, fit, masks, stepped) if trained else None
                for block in span if span[-1].index != last else ():
                    states.advance(block)


# What blocks make is the same every time: they are as in evaluation.
_again = partial(checkpoint, use_reentrant=False, determinism_check="none")


class _Work(NamedTuple):
    """Blocks that are trained, what runs behind them as it is, and how far they are off.

    A whole model's activations are made again in the pass back: kept, they would be larger than
    the model.
    """

    states: HiddenStates
    goal: Goal
    span: Sequence[Block]
    behind: Sequence[Block]

    def output(self, index: int) -> torch.Tensor:
        """The hidden states of a batch behind all of them."""
        states, hidden = self.states, self.states.entering(index)
        dtype = hidden.dtype
        autocast = dtype in (torch.bfloat16, torch.float16)
        again = torch.is_grad_enabled() and isinstance(self.goal, Predictions)
        with torch.autocast(states.device.type, torch.bfloat16, enabled=autocast):
            for block in (*self.span, *self.behind):
                if again:
                    hidden = _again(states.run, block, index, hidden)
                else:
                    hidden = states.run(block, index, hidden)
        return hidden.to(dtype)

    def mean_error(self, indices: Sequence[int]) -> float:
        """Over batches of all processes."""
        with torch.no_grad():
            sums = [
                (float(self.goal.error(i, self.output(i))), self.goal.count(i)) for i in indices
            ]
        total, count = distributed.sum_(
            torch.tensor(sums or [(0.0, 0)]).double().sum(dim=0)
        ).tolist()
        return total / max(count, 1)


class _Span:
    """The parameters of some blocks, in fp32 while they are trained."""

    def __init__(self, span: Sequence[Block], masks: Callable[[Block], Masks]) -> None:
        named = [(f"{b.name}.{n}", p) for b in span for n, p in b.module.named_parameters()]
        kept = {name: keep_OI for block in span for name, keep_OI in masks(block).items()}
        self.parameters = [parameter for _, parameter in named]
        self.dtype = self.parameters[0].dtype
        self._asked = [parameter.requires_grad for parameter in self.parameters]
        self._homes = [parameter.data for parameter in self.parameters]
        self._masks = [kept.get(name) for name, _ in named]
        for parameter, home in zip(self.parameters, self._homes, strict=True):
            parameter.data = home.to(torch.float32, copy=True)
            parameter.requires_grad_()

    def groups(self, rate: float) -> list[dict[str, object]]:
        """For an optimizer: each tensor with a step in proportion to what its entries are like."""
        return [
            {"params": [parameter], "lr": rate * _root_mean_square(parameter)}
            for parameter in self.parameters
        ]

    def learn(self, work: _Work, index: int | None) -> None:
        """Set gradients of the mean error over a batch of each process; None: this one has none."""
        gradients: Sequence[torch.Tensor | None] = [None] * len(self.parameters)
        if index is not None:
            with torch.enable_grad():
                output = work.output(index)
                gradients = torch.autograd.grad(
                    output,
                    self.parameters,
                    work.goal.gradient(index, output),
                    allow_unused=True,
                )
        count = 0 if index is None else work.goal.count(index)
        every = float(distributed.sum_(torch.tensor(float(count))))
        for parameter, keep_OI, found in zip(self.parameters, self._masks, gradients, strict=True):
            gradient = torch.zeros_like(parameter) if found is None else found
            parameter.grad = distributed.sum_(gradient) / max(every, 1)
            if keep_OI is not None:
                parameter.grad *= keep_OI.to(parameter.device)

    def copies(self) -> list[torch.Tensor]:
        """The values as they are now."""
        return [parameter.detach().clone() for parameter in self.parameters]

    def settle(self, values: Sequence[torch.Tensor]) -> None:
        """Write values where the parameters were, in the type that they had."""
        parts = zip(self.parameters, self._homes, values, self._asked, strict=True)
        with torch.no_grad():
            for parameter, home, value, asked in parts:
                parameter.grad, parameter.data = None, home
                parameter.requires_grad_(asked)
                parameter.copy_(value)


def _trained(
    work: _Work,
    fit: BlockFit,
    masks: Callable[[Block], Masks],
    stepped: Callable[[Sequence[Block]], None],
) -> Fitted:
    """Train a span, and leave it at its best."""
    inner = _Span(work.span, masks)
    best, done = inner.copies(), 0
    counted = [index for index in work.states.indices if work.goal.count(index)]
    learnt, judged = _divided(counted, fit.held_out)
    try:
        before = lowest = work.mean_error(judged)
        groups = inner.groups(fit.step_length)
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95), fused=True)
        shape = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_length, steps=fit.steps))
        for step in range(fit.steps):
            inner.learn(work, learnt[step % len(learnt)] if learnt else None)
            optimizer.step()
            optimizer.zero_grad()
            shape.step()
            stepped(work.span)
            if (step + 1) % math.ceil(fit.steps / CHECKS) == 0 or step + 1 == fit.steps:
                now = work.mean_error(judged)
                if not math.isfinite(now):
                    break
                if now < lowest:  # worse for a while is no reason to stop: steps become shorter
                    lowest, best, done = now, inner.copies(), step + 1
    finally:
        inner.settle(best)
    return Fitted(before, lowest, done)


def _length(step: int, steps: int) -> float:
    """Of a step, in parts of the longest: it rises for an eighth of the time, and falls to zero."""
    return min(1.0, 8 * (step + 1) / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _divided(indices: Sequence[int], held_out: float) -> tuple[list[int], list[int]]:
    """Batches to learn from, and to judge by; where there is only one, it is both."""
    count = min(max(1, round(len(indices) * held_out)), len(indices) - 1) if held_out else 0
    learnt = list(indices[: len(indices) - count]) if count > 0 else list(indices)
    return learnt, list(indices[len(indices) - count :]) if count > 0 else list(indices)


def _root_mean_square(tensor: torch.Tensor) -> float:
    kept = tensor.detach()
    nonzero = max(1, int(kept.count_nonzero()))
    return float((kept.square().sum() / nonzero).sqrt())
