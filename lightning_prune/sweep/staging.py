"""Weights on their way to a GPU, through memory that it reads by itself.

Ordinary memory goes through a small buffer of the driver's, piece by piece, each after the other.
Two pinned buffers by turns are several times faster: one is filled while the other is read.

Axes: N bytes.
"""

from __future__ import annotations

from functools import cache

import torch

__all__ = ["Staging", "to_device"]

SIZE = 2**26
"""Bytes of a buffer."""


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device: itself, if it is there."""
    if device.type != "cuda" or not tensor.is_cpu or tensor.is_pinned():
        return tensor.to(device, non_blocking=True)
    return _staging(device).copied(tensor)


@cache
def _staging(device: torch.device) -> Staging:
    return Staging(device)


class Staging:
    """Two buffers that tensors go through by turns.

    Args:
        device: where to; buffers are pinned if it is a GPU.
        size: bytes of each buffer.
    """

    def __init__(self, device: torch.device, size: int = SIZE) -> None:
        self.device, self.size = device, size
        pinned = device.type == "cuda"
        self._buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for _ in range(2)]
        self._read: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def copied(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor's copy on the device; it is there when the device comes to use it."""
        if not tensor.is_contiguous():
            return tensor.to(self.device, non_blocking=True)
        copy = torch.empty_like(tensor, device=self.device)
        target_N = copy.flatten().view(torch.uint8)
        source_N = tensor.detach().flatten().view(torch.uint8)
        parts = (whole_N.split(self.size) for whole_N in (source_N, target_N))
        for source, target in zip(*parts, strict=True):
            self._pass_on(source, target)
        return copy

    def _pass_on(self, source_N: torch.Tensor, target_N: torch.Tensor) -> None:
        self._turn = 1 - self._turn
        read = self._read[self._turn]
        if read is not None:
            read.synchronize()  # what it held is on the device
        buffer_N = self._buffers[self._turn][: len(source_N)]
        buffer_N.copy_(source_N)
        target_N.copy_(buffer_N, non_blocking=True)
        if self.device.type == "cuda":
            self._read[self._turn] = torch.cuda.current_stream(self.device).record_event()
