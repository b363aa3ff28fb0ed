"""The L2 norm of every input feature over all calibration tokens.

Axes: B sequences, T tokens, I input features.
"""

from __future__ import annotations

import torch

from lightning_prune.evidence.base import InputEvidence
from lightning_prune.evidence.token_weight import TokenWeight, scaled, token_scale

__all__ = ["InputNorm"]


class InputNorm(InputEvidence):
    """||X_j||_2 of every input feature j, as Wanda needs it.

    Wanda's code keeps a running mean of the squares over sequences; the norm of all tokens differs
    from its square root by one factor for the whole layer, so every ranking is the same.

    Args:
        token_weight: what a token counts by in the sum; see `token_scale`.
    """

    token_weight: TokenWeight = "square"

    def start(self) -> None:
        """Squares summed over no token."""
        self._squares_I = torch.zeros(self.width, dtype=torch.float64, device=self.device)

    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        """Add one batch: fp32 within a sequence, fp64 across sequences."""
        if keep_BT is not None:
            # Not a product: what stands at padded places may be NaN.
            input_BTI = input_BTI.masked_fill(~keep_BT[..., None], 0)
        input_BTI = scaled(input_BTI, token_scale(input_BTI, keep_BT, self.token_weight))
        norm_BI = torch.linalg.vector_norm(input_BTI, dim=1, dtype=torch.float32)
        self._squares_I += norm_BI.double().square().sum(dim=0).to(self.device)

    @property
    def sums(self) -> list[torch.Tensor]:
        """The sum of squares."""
        return [self._squares_I]

    def result(self) -> torch.Tensor:
        """The norms, shape (I,), fp32."""
        return self._squares_I.sqrt().float()
