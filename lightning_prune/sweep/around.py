"""What a model does by itself: in front of its blocks, between stages of them, and behind them.

It is run with its blocks switched off. Where a model has stages of other widths, it does something
of its own between two blocks; what the first of them gives goes through the model once more, up to
the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.sweep.block_calls import BlockCall
from lightning_prune.sweep.lending import home_device
from lightning_prune.sweep.placement import replaced_forward

__all__ = ["Around", "Entered", "rows_of"]

Inputs = Mapping[str, torch.Tensor]
Step = Callable[[int, torch.Tensor], torch.Tensor]
"""What stands in for a block: its index, and what enters it → what leaves it."""


class _Arrived(Exception):
    """The model has come to the block that was waited for; what comes after is of no use."""


class Entered:
    """One batch on its way through a model whose blocks are switched off.

    Attributes:
        hidden: what enters each block.
        calls: the arguments that the model hands to each.
    """

    def __init__(self) -> None:
        self.hidden: list[torch.Tensor] = []
        self.calls: list[BlockCall] = []


class Around:
    """A model without its blocks.

    Attributes:
        stage_ends: indices of the blocks behind which it does something, when it has been entered.

    Args:
        anatomy: of the model.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.stage_ends: set[int] = set()

    def enter(self, inputs: Inputs) -> Entered:
        """Run the body up to its last block, and note behind which blocks it does something."""
        entered, last = Entered(), len(self.anatomy.blocks) - 1

        def step(block: int, hidden: torch.Tensor) -> torch.Tensor:
            if block and hidden is not entered.hidden[-1]:
                self.stage_ends.add(block - 1)
            entered.hidden.append(hidden)
            if block == last:  # the final norm of everything would take longer than all this
                raise _Arrived
            return hidden

        self._run(self.anatomy.body, inputs, step, entered.calls)
        return entered

    def between(self, inputs: Inputs, block: int, hidden: torch.Tensor) -> torch.Tensor:
        """What the model makes of a block's output before it hands it to the next one."""
        home, arrived = home_device(self.anatomy.body), list[torch.Tensor]()

        def step(number: int, given: torch.Tensor) -> torch.Tensor:
            if number > block:
                arrived.append(given)
                raise _Arrived
            return hidden.to(home) if number == block else given

        self._run(self.anatomy.body, inputs, step)
        return arrived[0]

    def behind(self, inputs: Inputs, hidden: torch.Tensor) -> torch.Tensor:
        """What the whole model makes of the last block's output: final norm and head."""
        last = len(self.anatomy.blocks) - 1

        def step(block: int, given: torch.Tensor) -> torch.Tensor:
            # The others hand on what they get, so that what stands between them can run.
            return hidden if block == last else given

        return self._run(self.anatomy.model, inputs, step).logits

    def _run(
        self, module: Any, inputs: Inputs, step: Step, calls: list[BlockCall] | None = None
    ) -> Any:
        """A module's output, with steps in place of blocks; None if a step ends it."""
        family = self.anatomy.family

        def forward(block: int) -> Callable[..., Any]:
            def stand_in(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                if calls is not None:
                    calls.append((args, kwargs))
                return family.returned(step(block, hidden))

            return stand_in

        modules = (block.module for block in self.anatomy.blocks)
        with suppress(_Arrived), replaced_forward(modules, forward):
            return module(**inputs, **self.anatomy.task.arguments)
        return None


def rows_of(hidden: torch.Tensor) -> torch.Size:
    """(B, T) of hidden states: rows of (B, T, D), or places of feature maps (B, D, H, W)."""
    if hidden.ndim == 3:
        return hidden.shape[:2]
    return torch.Size((len(hidden), hidden.shape[2:].numel()))
