"""A block's weights on their way to a GPU while another block is at work there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import torch
from torch import nn

from lightning_prune.sweep.lending import Lent, tensors_of
from lightning_prune.sweep.staging import Staging

__all__ = ["ROOM", "Ahead"]

ROOM = 16
"""A block comes ahead only where so many times its size is free: evidence needs room, too."""


class Ahead:
    """Copies one module at a time in the background.

    A thread fills pinned buffers, and a stream of its own is copied by: neither waits for what is
    at work on the device, nor does that wait for them.

    Args:
        device: where to.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._staging = Staging(device)
        self._worker = ThreadPoolExecutor(1, "weights-ahead")
        self._coming: list[Lent] = []
        self._copies: Future[list[torch.Tensor]] | None = None

    def begin(self, module: nn.Module) -> None:
        """Copy a module's tensors; those that were begun before, and not taken, are let go."""
        self._coming = [Lent.of(tensor) for tensor in tensors_of(module)]
        self._copies = self._worker.submit(self._copied, [one.home for one in self._coming])

    def take(self, modules: Iterable[nn.Module]) -> dict[int, torch.Tensor]:
        """Copies of the tensors of these modules that have been begun and are still right.

        The device waits for them. Nothing is left of what was begun.

        Returns:
            Copies on the device by the id of the tensor.
        """
        coming, copies = self._coming, self._copies
        self.forget()
        wanted = {id(tensor) for module in modules for tensor in tensors_of(module)}
        if copies is None or not any(id(one.tensor) in wanted for one in coming):
            return {}
        try:
            made = copies.result()
        except torch.OutOfMemoryError:  # there may be room when they are needed
            return {}
        if self._stream is not None:
            using = torch.cuda.current_stream(self.device)
            using.wait_stream(self._stream)
            for copy in made:
                copy.record_stream(using)  # their memory is the other stream's
        return {
            id(one.tensor): copy
            for one, copy in zip(coming, made, strict=True)
            if id(one.tensor) in wanted and _is_at_home(one)
        }

    def forget(self) -> None:
        """Let go what was begun."""
        self._coming, self._copies = [], None

    def _copied(self, homes: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """In the thread; what is not in the CPU's memory stays where it is."""
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            return [self._staging.copied(home) if home.is_cpu else home for home in homes]


def _is_at_home(one: Lent) -> bool:
    """Whether what was copied is still what there is: neither changed nor replaced."""
    return one.is_unchanged and one.tensor.data_ptr() == one.home.data_ptr()
