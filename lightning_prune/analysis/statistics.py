"""How alike two vectors of numbers are, how alike two choices, and how numbers are spread.

Axes: N numbers; S sets: in both, in one alone, in the other alone, in none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

__all__ = [
    "Agreement",
    "Distribution",
    "Overlap",
    "average_ranks",
    "cosine",
    "expected_jaccard",
    "pearson",
    "sampled",
    "spearman",
]

SAMPLE = 1 << 22
"""How many numbers are looked at; of more, that many are drawn at random, always the same."""
BINS = 50
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Overlap:
    """What two decisions keep.

    Attributes:
        a, b: how many of `total` the one and the other keeps.
        both: how many both keep.
        chance: how many both would keep if they chose at random, as many from each block.
    """

    a: int
    b: int
    both: int
    total: int
    chance: float

    @property
    def jaccard(self) -> float:
        """Kept by both, of what either keeps."""
        return _ratio(self.both, self.a + self.b - self.both)

    @property
    def jaccard_by_chance(self) -> float:
        """What it would be about if they chose at random."""
        return _ratio(self.chance, self.a + self.b - self.chance)

    @property
    def removed_jaccard(self) -> float:
        """Removed by both, of what either removes."""
        both = self.total - self.a - self.b + self.both
        return _ratio(both, self.total - self.both)

    @classmethod
    def of(cls, a_N: torch.Tensor, b_N: torch.Tensor) -> Overlap:
        """What two choices have in common; True = kept."""
        a, b, total = int(a_N.sum()), int(b_N.sum()), a_N.numel()
        return cls(a, b, int((a_N & b_N).sum()), total, a * b / max(total, 1))

    @classmethod
    def sum(cls, overlaps: Sequence[Overlap]) -> Overlap:
        """What the choices of several blocks have in common."""
        names = ("a", "b", "both", "total", "chance")
        return cls(*(sum(getattr(overlap, name) for overlap in overlaps) for name in names))


@dataclass(frozen=True)
class Agreement:
    """How alike two scores are; NaN where that is undefined, as with constant scores.

    Attributes:
        count: how many numbers there are.
        pearson, spearman, cosine: correlation, correlation of ranks, cosine.
        overlap: of what they keep; None where a plan decides nothing about them.
    """

    count: int
    pearson: float
    spearman: float
    cosine: float
    overlap: Overlap | None

    @classmethod
    def of(
        cls, a_N: torch.Tensor, b_N: torch.Tensor, count: int, overlap: Overlap | None
    ) -> Agreement:
        """Compare the scores, or a sample of them, of `count` units."""
        return cls(count, pearson(a_N, b_N), spearman(a_N, b_N), cosine(a_N, b_N), overlap)


@dataclass(frozen=True)
class Distribution:
    """Scores by themselves.

    Attributes:
        count: how many numbers there are.
        quantiles: by fraction, linearly interpolated.
        edges, histogram: limits of the bins, and how many are in each.
    """

    count: int
    mean: float
    std: float
    min: float
    max: float
    quantiles: dict[float, float]
    edges: list[float]
    histogram: list[int]

    @classmethod
    def of(cls, score_N: torch.Tensor, count: int) -> Distribution:
        """Describe the scores, or a sample of them, of `count` units."""
        sorted_N = score_N.double().sort().values
        low, high = float(sorted_N[0]), float(sorted_N[-1])
        start, end = (low, high) if high > low else (low - 0.5, high + 0.5)
        return cls(
            count=count,
            mean=float(sorted_N.mean()),
            std=float(sorted_N.std(correction=0)),
            min=low,
            max=high,
            quantiles={q: _quantile(sorted_N, q) for q in QUANTILES},
            edges=torch.linspace(start, end, BINS + 1, dtype=torch.float64).tolist(),
            histogram=torch.histc(sorted_N, BINS, start, end).long().tolist(),
        )


def cosine(a_N: torch.Tensor, b_N: torch.Tensor) -> float:
    """Cosine of the angle between two vectors; NaN if one is zero."""
    a_N, b_N = a_N.double(), b_N.double()
    return float((a_N @ b_N) / (a_N.norm() * b_N.norm()))


def pearson(a_N: torch.Tensor, b_N: torch.Tensor) -> float:
    """Correlation of two vectors; NaN if one is constant."""
    if not _varies(a_N) or not _varies(b_N):  # rounding of the mean would leave a little noise
        return math.nan
    a_N, b_N = a_N.double(), b_N.double()
    return cosine(a_N - a_N.mean(), b_N - b_N.mean())


def spearman(a_N: torch.Tensor, b_N: torch.Tensor) -> float:
    """Correlation of the ranks of two vectors, equal values sharing their mean rank."""
    return pearson(average_ranks(a_N), average_ranks(b_N))


def average_ranks(score_N: torch.Tensor) -> torch.Tensor:
    """Ranks from 1 on, in float64; equal values share the mean of the ranks that they take up."""
    _, place_N, counts = torch.unique(score_N, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[place_N]


def sampled(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """All numbers of some tensors, in float64; of too many a sample, by their shapes alone."""
    total = sum(part.numel() for part in parts)
    generator = torch.Generator().manual_seed(0)

    def drawn() -> Iterator[torch.Tensor]:
        for part in parts:
            flat_N = part.flatten()
            if total > SAMPLE:
                share = math.ceil(SAMPLE * flat_N.numel() / total)
                flat_N = flat_N[torch.randint(flat_N.numel(), (share,), generator=generator)]
            yield flat_N.double()

    return torch.cat(list(drawn()))


def expected_jaccard(a: int, b: int, total: int) -> float:
    """Mean Jaccard of two sets of these sizes drawn at random, each out of the same `total`."""
    both_N = torch.arange(max(0, a + b - total), min(a, b) + 1, dtype=torch.float64)
    left_SN = torch.stack([both_N, a - both_N, b - both_N, total - a - b + both_N])
    chance_N = torch.softmax(-(left_SN + 1).lgamma().sum(dim=0), dim=0)  # hypergeometric
    return float((chance_N * both_N / (a + b - both_N)).sum())


def _varies(score_N: torch.Tensor) -> bool:
    return bool((score_N != score_N[:1]).any())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _quantile(sorted_N: torch.Tensor, fraction: float) -> float:
    """As `torch.quantile`, which refuses more than 16 million numbers and sorts each time."""
    place = fraction * (len(sorted_N) - 1)
    low, high = sorted_N[math.floor(place)], sorted_N[math.ceil(place)]
    return float(low + (high - low) * (place - math.floor(place)))
