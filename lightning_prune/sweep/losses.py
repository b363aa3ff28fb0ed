"""Objectives on a calibration set: where their gradients begin, and what they are divided by.

Axes: B sequences, T tokens, D hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from lightning_prune import distributed
from lightning_prune.anatomy import Block
from lightning_prune.evidence import Feature, HeadObjective, Objective
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.tokens import IGNORED

__all__ = ["Loss", "Roots", "loss_of"]

Roots = list[tuple[torch.Tensor, torch.Tensor]]
"""Tensors of a graph, each with the gradient of the objective that begins there."""


class Loss(ABC):
    """An objective on a calibration set.

    All gradients are those of a sum over the set. `total`, the same in all processes, is what
    makes it a mean.
    """

    total: float

    def __init__(self, states: HiddenStates) -> None:
        self.states = states

    @abstractmethod
    def weight_B(self, index: int) -> torch.Tensor:
        """What makes the gradient of each sequence of a batch that of its own mean."""

    @abstractmethod
    def at_head(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """The gradient at the last block's output, from all that is behind it."""

    @contextmanager
    def beginning(self, block: Block, index: int, roots: Roots) -> Iterator[None]:
        """While the block runs on a batch, note the outputs in it where gradients begin."""
        yield


class HeadLoss(Loss):
    """An objective of the logits; its gradient begins behind the last block alone.

    Raises:
        ValueError: nothing is asked for.
    """

    def __init__(self, states: HiddenStates, objective: HeadObjective) -> None:
        super().__init__(states)
        self.objective = objective
        self._count_B = [
            (states.targets(i, objective) != IGNORED).reshape(states.members(i), -1).sum(dim=1)
            for i in states.indices
        ]
        self.total = int(distributed.sum_(torch.tensor(sum(int(c.sum()) for c in self._count_B))))
        if self.total == 0:
            raise ValueError(
                "the calibration batches ask for no token: every label is -100 or padding, or the "
                "windows are one token long. Gradients need at least two tokens in a row."
            )

    def weight_B(self, index: int) -> torch.Tensor:
        """One over the number of targets; 0 if nothing is asked of a sequence."""
        count_B = self._count_B[index]
        return (count_B > 0) / count_B.clamp(min=1)

    def at_head(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """From the losses of some columns at a time."""
        return self.states.head_gradient(index, hidden, self.objective)


class FeatureLoss(Loss):
    """The norms of features; their gradients begin at the outputs of many modules.

    Raises:
        ValueError: no token counts.
    """

    def __init__(self, states: HiddenStates, objective: Feature) -> None:
        super().__init__(states)
        self.objective = objective
        sequences = sum(int((self.weight_B(i) > 0).sum()) for i in states.indices)
        self.total = int(distributed.sum_(torch.tensor(sequences))) * objective.scale
        if self.total == 0:
            raise ValueError("the calibration batches have no token that counts")

    def weight_B(self, index: int) -> torch.Tensor:
        """Every sequence that has a token counts as one."""
        keep_BT = self.states.keep(index)
        sequences = self.states.members(index)
        some_B = torch.ones(sequences) if keep_BT is None else keep_BT.any(dim=1)
        return some_B / self.objective.scale

    def at_head(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Nothing, or what begins in final norm, head and containers."""
        if self.objective.modules == "linear":
            return torch.zeros_like(hidden)
        inside = {id(m) for b in self.states.anatomy.blocks for m in b.module.modules()}
        outside = [m for m in self.states.anatomy.model.modules() if id(m) not in inside]
        hidden, roots = hidden.detach().requires_grad_(), Roots()
        with self._listening(outside, index, roots), torch.enable_grad():
            self.states.logits(index, hidden)
        tensors, gradients = zip(*roots, strict=True)
        return torch.autograd.grad(tensors, hidden, gradients)[0]

    @contextmanager
    def beginning(self, block: Block, index: int, roots: Roots) -> Iterator[None]:
        """At the block's Linears, or at all its modules, those that are pruned and the others."""
        whole = self.states.anatomy.blocks[block.index]
        modules = [site.module for site in whole.sites]
        every = whole.module.modules() if self.objective.modules == "all" else modules
        with self._listening(every, index, roots):
            yield

    @contextmanager
    def _listening(self, modules: Iterable[nn.Module], index: int, roots: Roots) -> Iterator[None]:
        sequences, keep_BT = self.states.members(index), self.states.keep(index)
        rows = self.states.shape(index)[1]

        def listen(_: nn.Module, inputs: Any, output: Any) -> None:
            feature = _tensor(output)
            if feature is not None and feature.requires_grad:
                # Features of one row may have axes of their own (a norm of heads); what is no row
                # of the hidden states (patches of an image) is taken as it comes.
                by_row = feature.numel() // feature.shape[-1] % (sequences * rows) == 0
                feature_BTK = feature.reshape(
                    sequences, rows if by_row else -1, -1 if by_row else feature.shape[-1]
                )
                gradient = self.objective.gradient(feature_BTK, keep_BT)
                roots.append((feature, gradient.reshape(feature.shape)))

        with _hooked(modules, listen):
            yield


@contextmanager
def _hooked(modules: Iterable[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(hook).remove)
        yield


def _tensor(output: Any) -> torch.Tensor | None:
    """The features in what a module returns; logits in a container are no features."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, tuple):
        return next((value for value in output if isinstance(value, torch.Tensor)), None)
    return getattr(output, "last_hidden_state", None)


def loss_of(states: HiddenStates, objective: Objective) -> Loss:
    """An objective on a calibration set."""
    losses: dict[str, Callable[[HiddenStates, Any], Loss]]
    losses = {"head": HeadLoss, "modules": FeatureLoss}
    return losses[objective.begins](states, objective)
