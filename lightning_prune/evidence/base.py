"""What a method may ask the sweep to collect.

Axes: B sequences, T tokens, I input features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch

from lightning_prune import distributed

__all__ = ["InputEvidence", "moved"]


class InputEvidence(ABC):
    """A statistic of the inputs of one site, or of several that share their input.

    It is fed batch by batch, adds up in float64 so that neither the order of the batches nor
    their distribution over processes shows in the sum, and is read once at the end.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.width = width
        self.device = device

    @abstractmethod
    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        """Add one batch. `keep_BT` is False at padding, which does not count; None: all count."""

    @property
    @abstractmethod
    def sums(self) -> list[torch.Tensor]:
        """The tensors that are added up over processes."""

    @abstractmethod
    def result(self) -> Any:
        """The statistic."""

    def reduce(self) -> None:
        """Add up over all processes, in place."""
        for tensor in self.sums:
            distributed.sum_(tensor)


def moved(result: Any, device: torch.device | str) -> Any:
    """A result, a tensor or a named tuple of tensors, on a device."""
    if isinstance(result, torch.Tensor):
        return result.to(device)
    return type(result)(*(part if part is None else part.to(device) for part in result))
