"""Shares and means of scores, with the range in which another sample would put them.

Axes: N scores, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["Rate", "mean_of", "rate_of"]

CONFIDENCE = 0.95
DRAWN_AT_ONCE = 2**22


@dataclass(frozen=True)
class Rate:
    """A share, or a mean, of scores, with the percentile interval of 95% of a bootstrap."""

    value: float
    low: float
    high: float
    count: int
    """Scores that it is of."""


def rate_of(
    scores: Sequence[float], threshold: float = 0.5, resamples: int = 2000, seed: int = 0
) -> Rate:
    """The share of scores that reach a threshold.

    Args:
        scores: one a text.
        threshold: from which on a text counts.
        resamples: how many samples of as many scores are drawn for the interval.
        seed: of these.

    Raises:
        ValueError: there is no score, or one is not a number, or resamples is below 1.
    """
    return _bootstrap((_checked(scores) >= threshold).double(), resamples, seed)


def mean_of(scores: Sequence[float], resamples: int = 2000, seed: int = 0) -> Rate:
    """The mean of scores; `rate_of` says more of the arguments.

    Raises:
        ValueError: there is no score, or one is not a number, or resamples is below 1.
    """
    return _bootstrap(_checked(scores), resamples, seed)


def _checked(scores: Sequence[float]) -> torch.Tensor:
    score_N = torch.as_tensor(scores, dtype=torch.float64)
    if not len(score_N):
        raise ValueError("there are no scores to take a rate of; give one at least")
    if not bool(torch.isfinite(score_N).all()):
        place = int((~torch.isfinite(score_N)).nonzero()[0])
        raise ValueError(f"score {place + 1} is {float(score_N[place])}; all have to be numbers")
    return score_N


def _bootstrap(value_N: torch.Tensor, resamples: int, seed: int) -> Rate:
    if resamples < 1:
        raise ValueError(f"resamples={resamples}; give 1 or more")
    count, generator = len(value_N), torch.Generator().manual_seed(seed)
    at_once, means = max(1, DRAWN_AT_ONCE // count), []
    for start in range(0, resamples, at_once):
        shape = (min(at_once, resamples - start), count)
        drawn_RN = torch.randint(count, shape, generator=generator)
        means.append(value_N[drawn_RN].mean(dim=1))
    tail = (1 - CONFIDENCE) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = torch.quantile(torch.cat(means), ends).tolist()
    return Rate(float(value_N.mean()), low, high, count)
