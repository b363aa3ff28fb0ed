"""The mean of every input feature.

Axes: B sequences, T tokens, I input features.
"""

from __future__ import annotations

import torch

from lightning_prune.evidence.base import InputEvidence
from lightning_prune.evidence.gram import kept_tokens

__all__ = ["InputMean"]


class InputMean(InputEvidence):
    """Mean over all calibration tokens of every input feature, as FLAP's bias needs it."""

    def start(self) -> None:
        """Sums over no token."""
        self._sum_I = torch.zeros(self.width, dtype=torch.float64, device=self.device)
        self._tokens = torch.zeros((), dtype=torch.float64)

    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        """Add one batch."""
        input_NI = kept_tokens(input_BTI, keep_BT)
        self._tokens += len(input_NI)
        self._sum_I += input_NI.sum(dim=0, dtype=torch.float64).to(self.device)

    @property
    def sums(self) -> list[torch.Tensor]:
        """The sum over tokens, and how many there were."""
        return [self._sum_I, self._tokens]

    def result(self) -> torch.Tensor:
        """The means, shape (I,), fp32."""
        return (self._sum_I / self._tokens).float()
