"""Tensors that are computed when they are written, so that one at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Lazy"]


@dataclass(frozen=True)
class Lazy:
    """A tensor's shape, and how to get it."""

    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]

    @staticmethod
    def cat(parts: Sequence[Lazy]) -> Lazy:
        """All rows of the parts, one after the other."""
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        return Lazy(shape, lambda: torch.cat([part.read() for part in parts]))

    def rows(self, start: int, stop: int) -> Lazy:
        """The rows from `start` up to `stop`."""
        return Lazy((stop - start, *self.shape[1:]), lambda: self.read()[start:stop])

    def grown(self, rows: int = 0, columns: int = 0) -> Lazy:
        """The tensor with this many more rows and columns of zeros."""
        if not (rows or columns):
            return self
        shape = (self.shape[0] + rows, *(size + columns for size in self.shape[1:]))
        padding = (0, columns, 0, rows) if len(shape) > 1 else (0, rows)
        return Lazy(shape, lambda: nn.functional.pad(self.read(), padding))

    def interleaved(self, heads: int) -> Lazy:
        """Each head's rows in the order in which llama.cpp's "norm" rotary embedding pairs them.

        Hugging Face rotates feature i of a head with feature i + half; this embedding rotates
        features that are neighbours.
        """

        def permuted() -> torch.Tensor:
            halves = self.read().reshape(heads, 2, -1, *self.shape[1:])
            return halves.swapaxes(1, 2).reshape(self.shape)

        return Lazy(self.shape, permuted)

    def plus_one(self) -> Lazy:
        """One added: a norm that multiplies by 1 + weight, as one that multiplies by weight."""
        return Lazy(self.shape, lambda: self.read().float() + 1)
