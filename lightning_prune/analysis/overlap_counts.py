"""What two masks of one matrix have in common, counted feature by feature, and summed up.

Axes: O output features, I input features, F features: rows or columns; N what is counted of each
feature: weights, those that stay in one mask, in the other, in both, the product of the values,
the squares of the one's, and of the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from lightning_prune.analysis.masks import Masks

__all__ = ["Tally", "counted", "metrics_of", "ratio"]


class _Side(NamedTuple):
    """Some rows of one matrix, and what is counted of them alone, each (F,)."""

    values_OI: np.ndarray | None
    keep_OI: np.ndarray
    ones_F: np.ndarray
    squares_F: np.ndarray


def counted(
    sources: Mapping[str, Masks], name: str, along: int
) -> dict[tuple[str, str], np.ndarray]:
    """Of every pair what is counted of each feature of a matrix, (N, F), N as `metrics_of` has it.

    Args:
        sources: by name.
        name: of the matrix.
        along: the axis that is summed over: 1, features are rows; 0, they are columns.
    """
    parts: dict[tuple[str, str], list[np.ndarray]] = {p: [] for p in combinations(sources, 2)}
    for rows in zip(*(source.rows(name) for source in sources.values()), strict=True):
        sides = {n: _side(v, k, along) for n, (v, k) in zip(sources, rows, strict=True)}
        for a, b in parts:
            parts[a, b].append(_pair(sides[a], sides[b], along))
    return {
        pair: np.concatenate(counts, axis=1) if along else np.sum(counts, axis=0)
        for pair, counts in parts.items()
    }


def _side(values_OI: np.ndarray | None, keep_OI: np.ndarray, along: int) -> _Side:
    squares_F = _products(values_OI, values_OI, keep_OI.shape, along)
    return _Side(values_OI, keep_OI, _ones(keep_OI, along), squares_F)


def _pair(a: _Side, b: _Side, along: int) -> np.ndarray:
    weights_F = np.full_like(a.ones_F, a.keep_OI.shape[along])
    both_F = _ones(a.keep_OI & b.keep_OI, along)
    dot_F = _products(a.values_OI, b.values_OI, a.keep_OI.shape, along)
    return np.stack([weights_F, a.ones_F, b.ones_F, both_F, dot_F, a.squares_F, b.squares_F])


def _ones(keep_OI: np.ndarray, along: int) -> np.ndarray:
    """How many stay, (F,). NumPy adds bytes many times faster than torch adds bools."""
    enough = np.uint8 if keep_OI.shape[along] <= np.iinfo(np.uint8).max else np.uint32
    return keep_OI.view(np.uint8).sum(axis=along, dtype=enough).astype(np.float64)


def _products(
    a: np.ndarray | None, b: np.ndarray | None, shape: tuple[int, ...], along: int
) -> np.ndarray:
    """Products summed up, (F,); 0 where a mask is all that is known."""
    if a is None or b is None:
        return np.zeros(shape[1 - along])
    return np.einsum("oi,oi->o" if along else "oi,oi->i", a, b).astype(np.float64)


def metrics_of(counts_NF: np.ndarray, valued: bool) -> dict[str, np.ndarray]:
    """Each metric of every feature, (F,), or of what was counted of all of them."""
    weights, a, b, both, dot, square_a, square_b = counts_NF
    metrics = {
        "jaccard": ratio(both, a + b - both),
        "cosine": ratio(both, np.sqrt(a * b)),
        "hamming": ratio(a + b - 2 * both, weights),
    }
    if valued:
        metrics["value_cosine"] = ratio(dot, np.sqrt(square_a * square_b))
    return metrics


def ratio(part: Any, whole: Any) -> np.ndarray:
    """One divided by the other; 0 where that would be 0 / 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


@dataclass(frozen=True)
class Tally:
    """What adds up over matrices.

    Attributes:
        counts_N: as `metrics_of` has them.
        chance: how many would stay in both if as many of each matrix were chosen at random.
        features: how many.
        sums: of each metric over features, and of its square.
    """

    counts_N: np.ndarray
    chance: float
    features: int
    sums: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, counts_NF: np.ndarray, metrics: Mapping[str, np.ndarray]) -> Tally:
        """What was counted of one matrix."""
        counts_N = counts_NF.sum(axis=1)
        weights, a, b = counts_N[:3]
        sums = {n: (float(v.sum()), float(np.square(v).sum())) for n, v in metrics.items()}
        return cls(counts_N, float(a * b / weights), counts_NF.shape[1], sums)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.counts_N + other.counts_N,
            self.chance + other.chance,
            self.features + other.features,
            {
                name: (total + other.sums[name][0], squares + other.sums[name][1])
                for name, (total, squares) in self.sums.items()
            },
        )
