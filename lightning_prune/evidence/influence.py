"""How much a block changes the hidden states that pass through it.

Axes: B sequences, T tokens, D hidden size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch

from lightning_prune import distributed

__all__ = ["INFLUENCE", "MSE", "MAE", "Angular", "BlockEvidence", "Cosine", "OutputNorm"]


class BlockEvidence(ABC):
    """A mean over tokens of what a block does to each, in fp32 a token and float64 the sum.

    It is fed batch by batch, and does not depend on how tokens are batched or shared out.
    """

    def __init__(self, device: torch.device) -> None:
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._tokens = torch.zeros((), dtype=torch.float64)

    @abstractmethod
    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """What is averaged, (B, T); the hidden states are fp32."""

    def update(
        self, before_BTD: torch.Tensor, after_BTD: torch.Tensor, keep_BT: torch.Tensor | None
    ) -> None:
        """Add one batch. `keep_BT` is False at padding, which does not count; None: all count."""
        value_BT = self.of_tokens(before_BTD.float(), after_BTD.float())
        value_N = value_BT.flatten() if keep_BT is None else value_BT[keep_BT]
        self._sum += value_N.sum(dtype=torch.float64).to(self._sum.device)
        self._tokens += value_N.numel()

    def reduce(self) -> None:
        """Add up over all processes, in place."""
        for tensor in (self._sum, self._tokens):
            distributed.sum_(tensor)

    def result(self) -> float:
        """The mean."""
        return float(self._sum.cpu() / self._tokens)


class Cosine(BlockEvidence):
    """1 - cos(before, after): block influence.

    Source: Men et al., "ShortGPT", arXiv 2403.03853, equation 1. A zero vector has cosine 1/2, as
    in the authors' code.
    """

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """By token."""
        return 1 - _cosine(before_BTD, after_BTD)


class Angular(BlockEvidence):
    """arccos(cos(before, after)) / π.

    Source: Gromov et al., arXiv 2403.17887, and CFSP. Differs from the codes of CFSP and ShortGPT:
    the cosine is clamped (rounding above 1 gave NaN), and no T x T product is made.
    """

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """By token."""
        return _cosine(before_BTD, after_BTD).acos() / math.pi


class MSE(BlockEvidence):
    """Mean over features of (after - before)²."""

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """By token."""
        return (after_BTD - before_BTD).square().mean(dim=-1)


class MAE(BlockEvidence):
    """Mean over features of |after - before|."""

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """By token."""
        return (after_BTD - before_BTD).abs().mean(dim=-1)


class OutputNorm(BlockEvidence):
    """L2 norm of the output. Grows with depth, and a few huge tokens dominate it."""

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """By token."""
        return torch.linalg.vector_norm(after_BTD, dim=-1)


def _cosine(left_BTD: torch.Tensor, right_BTD: torch.Tensor) -> torch.Tensor:
    """Of each pair of vectors, within [-1, 1]; 1/2 where one of them is zero."""
    left_BTD, right_BTD = left_BTD.double(), right_BTD.double()
    lengths_BT = torch.linalg.vector_norm(left_BTD, dim=-1)
    lengths_BT = lengths_BT * torch.linalg.vector_norm(right_BTD, dim=-1)
    cosine_BT = torch.linalg.vecdot(left_BTD, right_BTD) / lengths_BT
    return cosine_BT.where(lengths_BT > 0, 0.5).clamp(-1, 1)


INFLUENCE: dict[str, type[BlockEvidence]] = {
    "angular": Angular,
    "cosine": Cosine,
    "mse": MSE,
    "mae": MAE,
    "norm": OutputNorm,
}
"""By the names that users write."""
