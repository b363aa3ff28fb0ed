"""The first two moments of every input feature.

Axes: B sequences, T tokens, N tokens of a batch that count, I input features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from lightning_prune.evidence.base import InputEvidence
from lightning_prune.evidence.gram import kept_tokens

__all__ = ["AliasedMoments", "InputMoments", "Moments"]


class Moments(NamedTuple):
    """Of every input feature over all calibration tokens, each (I,) in fp32.

    Attributes:
        mean_I: the mean.
        variance_I: the mean squared deviation from the mean.
        norm_I: the L2 norm.
    """

    mean_I: torch.Tensor
    variance_I: torch.Tensor
    norm_I: torch.Tensor


class InputMoments(InputEvidence):
    """Mean, variance and L2 norm of every input feature, as FLAP's metrics need them.

    Squares are summed in fp64, token by token: a feature that is large and hardly moves keeps the
    digits of its variance.
    """

    def start(self) -> None:
        """Sums over no token."""
        self._sum_I = torch.zeros(self.width, dtype=torch.float64, device=self.device)
        self._squares_I = torch.zeros_like(self._sum_I)
        self._tokens = torch.zeros((), dtype=torch.float64)

    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        """Add one batch."""
        input_NI = kept_tokens(input_BTI, keep_BT)
        self._tokens += len(input_NI)
        self._sum_I += input_NI.sum(dim=0, dtype=torch.float64).to(self.device)
        norm_I = torch.linalg.vector_norm(input_NI, dim=0, dtype=torch.float64)
        self._squares_I += norm_I.square().to(self.device)

    @property
    def sums(self) -> list[torch.Tensor]:
        """The sums of the features and of their squares, and how many tokens there were."""
        return [self._sum_I, self._squares_I, self._tokens]

    def result(self) -> Moments:
        """Mean, variance and norm, each divided by the number of tokens but the last."""
        mean_I = self._sum_I / self._tokens
        variance_I = (self._squares_I / self._tokens - mean_I.square()).clamp(min=0)
        return Moments(mean_I.float(), variance_I.float(), self._squares_I.sqrt().float())


class AliasedMoments(InputMoments):
    """The same with the fluctuation of FLAP's code in place of the variance, to reproduce it.

    Its running update takes (x - new mean) twice where Welford's takes (x - old mean)(x - new
    mean), as both names stand for one buffer. With m_k the mean after k of N sequences:

        F = 1/(N - 1) · Σ_{k ≥ 2} (k - 1)/k · Σ over tokens t of sequence k of (x_t - m_k)²

    The first sequence counts nothing, the early ones too little, and the result depends on their
    order; so it is not for several processes.
    """

    def start(self) -> None:
        """Sums over no token, and no sequence."""
        super().start()
        self._fluctuation_I = torch.zeros_like(self._sum_I)
        self._sequences = 0

    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        """Add one sequence after the other."""
        for b, input_TI in enumerate(input_BTI):
            input_NI = input_TI if keep_BT is None else input_TI[keep_BT[b]]
            if not len(input_NI):
                continue
            super().update(input_NI[None], None)
            self._sequences += 1
            k, mean_I = self._sequences, self._sum_I / self._tokens
            moved_NI = input_NI.to(self.device, torch.float64) - mean_I
            self._fluctuation_I += (k - 1) / k * moved_NI.square().sum(dim=0)

    def result(self) -> Moments:
        """Mean, fluctuation, norm."""
        fluctuation_I = self._fluctuation_I / max(self._sequences - 1, 1)
        return super().result()._replace(variance_I=fluctuation_I.float())
