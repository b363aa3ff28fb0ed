"""Gradients of one weight over the calibration set, and the Taylor terms made from them.

Axes: O output features, I input features.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from lightning_prune import distributed

__all__ = ["GradientEvidence", "SquaredGradientEvidence"]


class GradientEvidence:
    """First- and second-order evidence of one weight.

    The gradient is that of the mean loss over every token of the calibration set, whatever the
    batch size and the number of processes: |w·g| of a sum is not the sum of |w·g|, so the gradient
    is completed before anything is read from it. Only one block's weights hold it at a time.

    Args:
        weight_OI: the weight, as it was when the gradients were taken.

    Attributes:
        squares: also keep the squares of every sequence's own gradient.
    """

    squares: ClassVar[bool] = False

    def __init__(self, weight_OI: torch.Tensor) -> None:
        self.weight_OI = weight_OI.detach()
        self._sum_OI = torch.zeros_like(self.weight_OI, dtype=torch.float64)
        self._squares_OI = torch.zeros_like(self._sum_OI) if self.squares else None
        self._sequences = torch.zeros((), dtype=torch.float64)

    def update(self, gradient_OI: torch.Tensor) -> None:
        """Add the gradient of the summed loss of some tokens."""
        self._sum_OI += gradient_OI

    def update_square(self, gradient_OI: torch.Tensor) -> None:
        """Add the gradient of the mean loss of one sequence alone."""
        assert self._squares_OI is not None, "made without squares"
        double_OI = gradient_OI.double()
        self._squares_OI.addcmul_(double_OI, double_OI)
        self._sequences += 1

    def reduce(self, tokens: float) -> None:
        """Add up over all processes, and make the gradient that of the mean over `tokens`."""
        distributed.sum_(self._sum_OI).div_(tokens)
        if self._squares_OI is not None:
            distributed.sum_(self._squares_OI)
            distributed.sum_(self._sequences)

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


class SquaredGradientEvidence(GradientEvidence):
    """The same with the squares, for second-order terms: twice the memory of one block."""

    squares = True
