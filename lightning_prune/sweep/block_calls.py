"""The arguments that a model hands to each of its blocks, moved to the device once."""

from __future__ import annotations

from typing import Any

import torch

from lightning_prune.sweep.lending import move

__all__ = ["BlockCall", "SharedCalls"]

BlockCall = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call of a block, without the hidden states."""


class SharedCalls:
    """Moves the arguments of one batch, each once for all blocks that share it.

    Those that equal the previous batch's are reused, so that masks and rotary tables are held once.

    Args:
        device: where blocks run.
        previous: the calls of the batch before, by block; None for the first.
    """

    def __init__(self, device: torch.device, previous: list[BlockCall] | None) -> None:
        self._device = device
        self._previous = previous
        self._moved: dict[int, tuple[Any, Any]] = {}

    def moved(self, index: int, call: BlockCall) -> BlockCall:
        """The call of the block of this index, on the device."""
        args, kwargs = call
        before = self._previous[index] if self._previous else ((None,) * len(args), {})
        return (
            tuple(self._reused(a, b) for a, b in zip(args, before[0], strict=True)),
            {name: self._reused(value, before[1].get(name)) for name, value in kwargs.items()},
        )

    def _reused(self, value: Any, before: Any) -> Any:
        if id(value) not in self._moved:
            moved = move(value, self._device)
            # The original is held too, so that its id stays its own.
            self._moved[id(value)] = (value, before if _equal(moved, before) else moved)
        return self._moved[id(value)][1]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return False
