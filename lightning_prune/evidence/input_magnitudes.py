"""How large the numbers of an input are: how many have each magnitude.

Axes: B sequences, T tokens, I input features, N magnitudes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from lightning_prune.evidence.base import InputEvidence
from lightning_prune.evidence.gram import kept_tokens

__all__ = ["InputMagnitudes", "Magnitudes"]

DROPPED = 13  # bits of a float32's fraction that are not told apart; ten are left
BINS = 1 << (31 - DROPPED)
INFINITE = int(torch.tensor(torch.inf).view(torch.int32)) >> DROPPED


class Magnitudes(NamedTuple):
    """How many of the numbers of an input have each magnitude, the smallest first.

    Attributes:
        value_N: the largest float32 of each bin in which there are numbers, (N,).
        count_N: how many numbers are in it, (N,), int64.
    """

    value_N: torch.Tensor
    count_N: torch.Tensor

    @classmethod
    def together(cls, parts: Sequence[Magnitudes], weights: Sequence[int]) -> Magnitudes:
        """Those of several inputs, each number counted so many times."""
        value_N = torch.cat([part.value_N for part in parts])
        count_N = torch.cat([p.count_N * weight for p, weight in zip(parts, weights, strict=True)])
        value_N, place_N = value_N.unique(return_inverse=True)
        return cls(value_N, torch.zeros_like(value_N, dtype=torch.int64).index_add_(
            0, place_N, count_N
        ))  # fmt: skip

    def quantile(self, fraction: float) -> float:
        """The smallest of the values that so large a fraction of the numbers does not exceed."""
        reached_N = self.count_N.cumsum(0).double() / self.count_N.sum()
        place = int(torch.searchsorted(reached_N, torch.tensor(fraction, dtype=torch.float64)))
        return float(self.value_N[min(place, len(self.value_N) - 1)])

    def share(self, threshold: float) -> float:
        """The fraction of the numbers that are not larger than a threshold."""
        return int(self.count_N[self.value_N <= threshold].sum()) / int(self.count_N.sum())


class InputMagnitudes(InputEvidence):
    """How many of the numbers of an input, over all tokens and features, have each magnitude.

    The order of positive floats is that of their bits, so that the first bits are the bins: eight
    of the exponent and ten of the fraction. Numbers of bfloat16 and float16 are told apart; of
    float32 those in one bin differ by a thousandth at most. Counts add up exactly, whatever the
    batches.
    """

    def start(self) -> None:
        """Counts of no token."""
        self._count_N = torch.zeros(BINS, dtype=torch.int64, device=self.device)

    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        """Add one batch."""
        bits = kept_tokens(input_BTI, keep_BT).float().abs().contiguous().view(torch.int32)
        counted_N = torch.bincount((bits >> DROPPED).flatten(), minlength=BINS)
        self._count_N += counted_N.to(self.device)

    @property
    def sums(self) -> list[torch.Tensor]:
        """The counts."""
        return [self._count_N]

    def result(self) -> Magnitudes:
        """The magnitudes that there are, and their counts.

        Raises:
            ValueError: a number is infinite or none.
        """
        if self._count_N[INFINITE:].any():
            raise ValueError(
                "activations are not finite: they overflow. Load the model in bfloat16 or float32"
            )
        bin_N = self._count_N.nonzero()[:, 0]
        value_N = (((bin_N + 1) << DROPPED) - 1).int().view(torch.float32)
        return Magnitudes(value_N, self._count_N[bin_N])
