"""Gram matrices of a site's input together with what the dense model has in its place.

Axes: B sequences, T tokens, N tokens of a batch that count, I input features, D hidden size.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, NamedTuple

import torch
from typing_extensions import Self

from lightning_prune.evidence.base import PairedEvidence
from lightning_prune.evidence.gram import Gram, kept_tokens, product
from lightning_prune.evidence.token_weight import scaled, token_scale

__all__ = ["CrossGram", "PairedGram", "for_rows"]


class PairedGram(NamedTuple):
    """Means over tokens, fp32. x is the input in the pruned model, d that in the dense one.

    Attributes:
        gram_II: mean of x xᵀ.
        cross_II: mean of d xᵀ.
        error_DI: mean of e xᵀ, where e is the dense residual stream less the pruned one, in front
            of what the site adds to it; None if the site adds nothing.
    """

    gram_II: torch.Tensor
    cross_II: torch.Tensor
    error_DI: torch.Tensor | None


def for_rows(result: Any, rows: slice) -> Any:
    """Of the result of an evidence, what is about some of the site's output features.

    Args:
        result: of any kind of evidence; most are about the input alone, and come back as they are.
        rows: the features.
    """
    if not isinstance(result, PairedGram) or result.error_DI is None:
        return result
    return result._replace(error_DI=result.error_DI[rows])


class CrossGram(Gram, PairedEvidence):
    """What it takes to fit a site, on the pruned model's input, to what the dense model does.

    The best weights for a target Y are Y Xᵀ (X Xᵀ)⁻¹; with Y = W D + E, Y Xᵀ is made from the two
    cross products here.
    """

    _error_DI: torch.Tensor = field(init=False)

    def begin(self, width: int, device: torch.device, adds: int = 0) -> Self:
        """An empty accumulator, with the products of what is missing in the stream."""
        accumulator = super().begin(width, device, adds)
        accumulator._error_DI = torch.zeros(adds, width, dtype=torch.float64, device=device)
        return accumulator

    def start(self) -> None:
        """Products summed over no token."""
        super().start()
        self._cross_II = torch.zeros_like(self._sum_II)

    def update_pair(
        self,
        input_BTI: torch.Tensor,
        dense_BTI: torch.Tensor,
        error_BTD: torch.Tensor | None,
        keep_BT: torch.Tensor | None,
    ) -> None:
        """Add one batch of both models."""
        scale_BT1 = token_scale(input_BTI, keep_BT, self.token_weight)

        def counted(value_BTF: torch.Tensor) -> torch.Tensor:
            return kept_tokens(scaled(value_BTF, scale_BT1), keep_BT)

        input_NI = counted(input_BTI)
        self._add(input_NI)
        self._cross_II += product(counted(dense_BTI), input_NI).to(self.device)
        if error_BTD is not None:
            self._error_DI += product(counted(error_BTD), input_NI).to(self.device)

    def operations(self, width: int, tokens: int, adds: int = 0) -> float:
        """The triangle of one, and all products of two."""
        return super().operations(width, tokens) + 2.0 * tokens * width * (width + adds)

    @property
    def sums(self) -> list[torch.Tensor]:
        """Those of the Gram matrix, and the cross products."""
        return [*super().sums, self._cross_II, self._error_DI]

    def result(self) -> PairedGram:  # type: ignore[override]
        """The three mean products."""
        error_DI = (self._error_DI / self._tokens * self.confidence).float()
        return PairedGram(
            super().result(),
            self.believed(self._cross_II.div_(self._tokens).float()),
            error_DI if len(error_DI) else None,
        )
