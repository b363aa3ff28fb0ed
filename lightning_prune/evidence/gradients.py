"""Gradients of one weight over the calibration set, and the Taylor terms made from them.

Axes: O output features, I input features.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field
from typing import Any

import torch
from torch import nn
from typing_extensions import Self

from lightning_prune import distributed
from lightning_prune.evidence.base import Evidence
from lightning_prune.evidence.objective import Objective, TaskLoss

__all__ = ["Gradients", "WeightEvidence"]


class WeightEvidence(Evidence):
    """A statistic of the gradients of single weights, made from one backward pass a batch.

    Args:
        objective: of what gradients are taken.

    Attributes:
        weight_OI: the weight of an accumulator, as it was when the gradients were taken.
    """

    sweep = "backward"

    objective: Objective = TaskLoss()
    weight_OI: torch.Tensor = field(init=False)

    def begin(self, weight_OI: torch.Tensor) -> Self:
        """An empty accumulator for a weight."""
        accumulator = copy.copy(self)
        accumulator.weight_OI = weight_OI.detach()
        accumulator.start()
        return accumulator

    @property
    def component(self) -> str:
        """The name of its objective, by which kept scores of several are told apart."""
        return type(self.objective).__name__

    def rules(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Context in which the model is run forward and backward, such as other rules for layers.

        Nothing of it may be left behind when it ends.
        """
        return nullcontext()

    @abstractmethod
    def start(self) -> None:
        """Make the sums, of zeros, for `weight_OI`."""

    @abstractmethod
    def update(self, gradient_OI: torch.Tensor) -> None:
        """Add the gradient of the summed objective of some tokens."""

    def update_own(self, gradient_OI: torch.Tensor) -> None:
        """Add the gradient of the mean objective of one sequence alone."""
        raise NotImplementedError(f"{type(self).__name__} wants no gradients by sequence")

    def complete(self, total: float) -> None:
        """Add up over processes, and divide by what makes the sum a mean."""
        self.reduce()

    @property
    def by_sequence(self) -> bool:
        """Whether the gradient of every sequence's own mean is wanted too; see `update_own`."""
        return False

    @property
    def floats(self) -> int:
        """Numbers of 8 bytes that an accumulator holds for each weight."""
        return 1


class Gradients(WeightEvidence):
    """First- and second-order evidence of one weight; the result of an accumulator is itself.

    The gradient is that of the mean objective over the whole calibration set, whatever the batch
    size and the number of processes: |w·g| of a sum is not the sum of |w·g|, so the gradient is
    completed before anything is read from it. Only one block's weights hold it at a time.

    Args:
        objective: of what gradients are taken.
        squares: also keep the squares of every sequence's own gradient: twice the memory.
    """

    squares: bool = False

    def start(self) -> None:
        """Gradients summed over no token."""
        self._sum_OI = torch.zeros_like(self.weight_OI, dtype=torch.float64)
        self._squares_OI = torch.zeros_like(self._sum_OI) if self.squares else None
        self._sequences = torch.zeros((), dtype=torch.float64)

    def update(self, gradient_OI: torch.Tensor) -> None:
        """Add the gradient of the summed objective of some tokens."""
        self._sum_OI += gradient_OI

    def update_own(self, gradient_OI: torch.Tensor) -> None:
        """Add the squared gradient of the mean objective of one sequence alone."""
        assert self.by_sequence, "made without squares"
        if self._squares_OI is not None:
            double_OI = gradient_OI.double()
            self._squares_OI.addcmul_(double_OI, double_OI)
        self._sequences += 1

    def complete(self, total: float) -> None:
        """Add up over processes, and make the gradient that of the mean."""
        distributed.sum_(self._sum_OI).div_(total)
        if self._squares_OI is not None:
            distributed.sum_(self._squares_OI)
        if self.by_sequence:
            distributed.sum_(self._sequences)

    @property
    def by_sequence(self) -> bool:
        """Whether sums are taken of each sequence alone, as squared gradients need it."""
        return self.squares

    @property
    def floats(self) -> int:
        """The sum, and the sum of squares."""
        return 2 if self.squares else 1

    def result(self) -> Gradients:
        """Itself: the terms below are made when they are asked for."""
        return self

    @property
    def first_OI(self) -> torch.Tensor:
        """w·g: to first order, what the loss falls by when the weight is removed (fp32, signed)."""
        return (self.weight_OI.double() * self._sum_OI).float()

    @property
    def absolute_OI(self) -> torch.Tensor:
        """|w·g| (fp32)."""
        return self.first_OI.abs()

    @property
    def square_OI(self) -> torch.Tensor:
        """Mean of g² over sequences, the diagonal of the empirical Fisher matrix (fp32)."""
        assert self._squares_OI is not None, "made without squares"
        return (self._squares_OI / self._sequences).float()
