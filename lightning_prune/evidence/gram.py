"""The Gram matrix of a site's input: all that a layer's squared error depends on.

Few tokens tell how large each feature is long before they tell how features go together: a matrix
of I features has I (I + 1) / 2 entries, and of fewer than I tokens it is singular. Whoever solves
with it then learns these tokens by heart, and does worse than who looks at its diagonal alone. So
below `rows_per_feature` tokens for each feature what stands beside the diagonal is scaled down, in
proportion to the tokens that are lacking: with hardly any, a method is left with the diagonal, as
Wanda is; with enough, the matrix is as it is.

Source: shrinkage of a covariance towards its diagonal, Schäfer and Strimmer, "A Shrinkage Approach
to Large-Scale Covariance Matrix Estimation and Implications for Functional Genomics" (2005), target
D. How far to go is not estimated from the tokens as there, but a matter of their number.

Axes: B sequences, T tokens, N tokens of a batch that count, F, I features, S, P rows and columns of
a panel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from lightning_prune.evidence.base import InputEvidence
from lightning_prune.evidence.token_weight import TokenWeight, scaled, token_scale

__all__ = ["Gram", "kept_tokens", "product"]

PANELS = 8


class Gram(InputEvidence):
    """The mean over tokens of x xᵀ, with which ||X(W - V)ᵀ||² needs no X any more.

    SparseGPT's code has twice the sum over tokens, divided by the number of sequences: the same
    but for a factor that no method here depends on.

    One batch is multiplied on the hardware's matrix units in the type of the activations, with
    fp32 accumulation; batches add up in fp64. Only the upper triangle is computed, in panels.

    Args:
        token_weight: what a token counts by in the sum; see `token_scale`.
    """

    rows_per_feature: ClassVar[int] = 4

    token_weight: TokenWeight = "square"

    def start(self) -> None:
        """Products summed over no token."""
        shape_II = (self.width, self.width)
        self._sum_II = torch.zeros(shape_II, dtype=torch.float64, device=self.device)
        self._tokens = torch.zeros((), dtype=torch.float64)

    def update(self, input_BTI: torch.Tensor, keep_BT: torch.Tensor | None) -> None:
        """Add one batch."""
        scale_BT1 = token_scale(input_BTI, keep_BT, self.token_weight)
        self._add(kept_tokens(scaled(input_BTI, scale_BT1), keep_BT))

    def _add(self, input_NI: torch.Tensor) -> None:
        self._tokens += len(input_NI)
        for panel in self._panels():
            product_SP = product(input_NI[:, : panel.stop], input_NI[:, panel])
            self._sum_II[: panel.stop, panel] += product_SP.to(self._sum_II.device)

    def _panels(self) -> Iterator[slice]:
        """Columns; those of a panel are made down to the diagonal, and a little below it."""
        # A panel narrower than this would leave the matrix units half empty.
        width = max(128, -(-self.width // PANELS))
        for start in range(0, self.width, width):
            yield slice(start, min(start + width, self.width))

    def operations(self, width: int, tokens: int, adds: int = 0) -> float:
        """A triangle of products."""
        return float(tokens) * width**2

    @property
    def sums(self) -> list[torch.Tensor]:
        """The sum over tokens, as far as it is made, and how many there were."""
        return [*(self._sum_II[: panel.stop, panel] for panel in self._panels()), self._tokens]

    def result(self) -> torch.Tensor:
        """The matrix, shape (I, I), fp32; beside the sum, nothing else as large is made."""
        mean_II = torch.empty_like(self._sum_II, dtype=torch.float32)
        for panel in self._panels():
            above_SP = self._sum_II[: panel.stop, panel].div_(self._tokens)
            mean_II[: panel.stop, panel] = above_SP
            mean_II[panel, : panel.start] = mean_II[: panel.start, panel].mT
            own_PP = mean_II[panel, panel]
            own_PP.copy_(own_PP.triu() + own_PP.triu(1).mT)
        return self.believed(mean_II)

    @property
    def confidence(self) -> float:
        """How far products of two features are believed, in [0, 1]; 1 with enough tokens."""
        enough = self.rows_per_feature * self.width
        return min(1.0, float(self._tokens) / enough) if enough else 1.0

    def believed(self, mean_II: torch.Tensor) -> torch.Tensor:
        """Mean products of two features, made as far as they are believed; the diagonal wholly."""
        if self.confidence < 1:
            square_I = mean_II.diagonal().clone()
            mean_II.mul_(self.confidence).diagonal().copy_(square_I)
        return mean_II


def kept_tokens(value_BTF: torch.Tensor, keep_BT: torch.Tensor | None) -> torch.Tensor:
    """The features of the tokens that count, (N, F)."""
    return value_BTF.flatten(0, -2) if keep_BT is None else value_BTF[keep_BT]


def product(left_NF: torch.Tensor, right_NI: torch.Tensor) -> torch.Tensor:
    """Sum over tokens of left rightᵀ, (F, I), in fp32 whatever the type of the factors."""
    if left_NF.is_cuda and left_NF.dtype != torch.float32:
        return torch.mm(left_NF.mT, right_NI, out_dtype=torch.float32)
    with _matrix_units(left_NF.dtype, right_NI.dtype):
        return left_NF.mT.float() @ right_NI.float()


@contextmanager
def _matrix_units(*factors: torch.dtype) -> Iterator[None]:
    """Context in which a CPU multiplies on its units for bfloat16 what came as that alone.

    Nothing is lost by it: such factors are what they were, and sums are made in fp32.
    """
    settings: Any = torch.backends.mkldnn
    precise = getattr(getattr(settings, "matmul", None), "fp32_precision", None)  # torch 2.9
    if {*factors} != {torch.bfloat16} or precise is None:
        yield
        return
    settings.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.matmul.fp32_precision = precise
