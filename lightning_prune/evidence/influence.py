"""How important a block is: what it changes in what passes through it, or what is lost without it.

Axes: B sequences, T tokens, D hidden size.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from dataclasses import field, replace
from typing import Any, Literal

import torch
from typing_extensions import Self

from lightning_prune.evidence.base import Evidence

__all__ = [
    "MAE",
    "MEASURES",
    "MSE",
    "Angular",
    "BlockEvidence",
    "Cosine",
    "Measure",
    "OutputNorm",
    "Part",
    "Removal",
    "measure",
]

Part = Literal["block", "attention", "mlp"]
Measure = Literal["removal", "norm", "angular", "cosine", "mse", "mae"]


class BlockEvidence(Evidence):
    """A mean over tokens of what a block does to each, in fp32 a token and float64 the sum.

    It is fed batch by batch, and does not depend on how tokens are batched or shared out. The
    result is one number, under the key "block".

    Args:
        part: of the whole "block", or of its "attention" or "mlp" alone.
        span: of so many consecutive blocks, from each on; 1 for a part.
    """

    sweep = "influence"

    part: Part = "block"
    span: int = 1
    _sum: torch.Tensor = field(init=False)
    _tokens: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("span", self.span >= 1, "it is 1 or more")
        self.require("span", self.span == 1 or self.part == "block", "a part is measured alone")

    def begin(self, device: torch.device) -> Self:
        """An empty accumulator."""
        accumulator = copy.copy(self)
        accumulator._sum = torch.zeros((), dtype=torch.float64, device=device)
        accumulator._tokens = torch.zeros((), dtype=torch.float64)
        return accumulator

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

    def spanning(self, blocks: int) -> Self:
        """The same of so many consecutive blocks."""
        return replace(self, span=blocks)

    @property
    def sums(self) -> list[torch.Tensor]:
        """The sum over tokens, and how many there were."""
        return [self._sum, self._tokens]

    def result(self) -> float:
        """The mean over all tokens that count."""
        return float(self._sum.cpu() / self._tokens)


class Cosine(BlockEvidence):
    """1 - cos(before, after): block influence.

    Source: Men et al., "ShortGPT", arXiv 2403.03853, equation 1. A zero vector has cosine 1/2, as
    in the authors' code.
    """

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """1 - cos of the two states of each token."""
        return 1 - _cosine(before_BTD, after_BTD)


class Angular(BlockEvidence):
    """arccos(cos(before, after)) / π.

    Source: Gromov et al., arXiv 2403.17887, and CFSP. Differs from the codes of CFSP and ShortGPT:
    the cosine is clamped (rounding above 1 gave NaN), and no T x T product is made.
    """

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """The angle between the two states of each token, over π."""
        return _cosine(before_BTD, after_BTD).acos() / math.pi


class MSE(BlockEvidence):
    """Mean over features of (after - before)²."""

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """The mean squared change of each token."""
        return (after_BTD - before_BTD).square().mean(dim=-1)


class MAE(BlockEvidence):
    """Mean over features of |after - before|."""

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """The mean absolute change of each token."""
        return (after_BTD - before_BTD).abs().mean(dim=-1)


class OutputNorm(BlockEvidence):
    """L2 norm of the output. Grows with depth, and a few huge tokens dominate it."""

    def of_tokens(self, before_BTD: torch.Tensor, after_BTD: torch.Tensor) -> torch.Tensor:
        """The norm of each token's output."""
        return torch.linalg.vector_norm(after_BTD, dim=-1)


def _cosine(left_BTD: torch.Tensor, right_BTD: torch.Tensor) -> torch.Tensor:
    """Of each pair of vectors, within [-1, 1]; 1/2 where one of them is zero."""
    left_BTD, right_BTD = left_BTD.double(), right_BTD.double()
    lengths_BT = torch.linalg.vector_norm(left_BTD, dim=-1)
    lengths_BT = lengths_BT * torch.linalg.vector_norm(right_BTD, dim=-1)
    cosine_BT = torch.linalg.vecdot(left_BTD, right_BTD) / lengths_BT
    return cosine_BT.where(lengths_BT > 0, 0.5).clamp(-1, 1)


class Removal(Evidence):
    """What the perplexity rises by without a block: the exponential of the mean loss.

    The result is one number, under the key "block".

    Args:
        part: without the whole "block", or its "attention" or "mlp" alone.
        windows: on the first so many members of the calibration set; 0: on all.
    """

    sweep = "removal"

    part: Part = "block"
    windows: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("windows", self.windows >= 0, "it is 1 or more calibration windows, or 0: all")


MEASURES: dict[str, type[BlockEvidence]] = {
    "angular": Angular,
    "cosine": Cosine,
    "mse": MSE,
    "mae": MAE,
    "norm": OutputNorm,
}
"""What a block changes in what passes through it, by the names that users write."""


def measure(name: Measure, part: Part = "block", windows: int = 0, span: int = 1) -> Evidence:
    """The evidence that users know by a name.

    Args:
        name: "removal" or one of `MEASURES`.
        part: of what of a block.
        windows: of "removal": on how many calibration windows; 0: on all.
        span: of the others: of how many consecutive blocks.

    Raises:
        ValueError: the name is unknown, or part, windows or span do not go with it.
    """
    settings: dict[str, Any] = {"part": part}
    if name == "removal":
        return Removal(windows=windows, **settings)
    return MEASURES[name](span=span, **settings)
