"""Shares and means, with the range of a bootstrap."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch

from lightning_prune.evaluation import mean_of, rate_of
from lightning_prune.evaluation.rates import Rate


def test_a_rate_is_the_share_that_reaches_the_threshold() -> None:
    """The threshold itself does."""
    rate = rate_of([0.1, 0.5, 0.9, 0.4])
    assert (rate.value, rate.count) == (0.5, 4)
    assert rate_of([0.1, 0.5, 0.9, 0.4], threshold=0.9).value == 0.25
    assert rate_of([1.0, 1.0]) == Rate(1.0, 1.0, 1.0, 2)


def test_a_mean_is_that_of_the_scores() -> None:
    """And lies in its interval."""
    mean = mean_of([0.0, 0.25, 1.0, 0.75])
    assert mean.value == 0.5
    assert 0 <= mean.low < 0.5 < mean.high <= 1


def test_the_interval_of_many_scores_is_that_of_the_normal_distribution() -> None:
    """1.96 standard errors to each side, within a tenth of that."""
    scores = torch.rand(1500, generator=torch.Generator().manual_seed(0)) < 0.3
    rate = rate_of(scores.double().tolist())
    error = math.sqrt(rate.value * (1 - rate.value) / rate.count)
    half = NormalDist().inv_cdf(0.975) * error
    assert rate.high - rate.value == pytest.approx(half, rel=0.1)
    assert rate.value - rate.low == pytest.approx(half, rel=0.1)


def test_a_seed_draws_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many at once; the global random state is left alone."""
    scores = torch.rand(200, generator=torch.Generator().manual_seed(1)).tolist()
    torch.manual_seed(3)
    first = mean_of(scores, seed=4)
    drawn = torch.rand(2)
    monkeypatch.setattr("lightning_prune.evaluation.rates.DRAWN_AT_ONCE", 1000)
    assert mean_of(scores, seed=4) == first != mean_of(scores, seed=5)
    torch.manual_seed(3)
    torch.testing.assert_close(torch.rand(2), drawn, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("scores", "resamples", "message"),
    [
        ([], 10, "there are no scores to take a rate of"),
        ([0.5, float("nan")], 10, "score 2 is nan; all have to be numbers"),
        ([0.5], 0, "resamples=0; give 1 or more"),
    ],
)
def test_what_has_no_rate_is_refused(scores: list[float], resamples: int, message: str) -> None:
    """Shares and means alike."""
    for rate in (rate_of, mean_of):
        with pytest.raises(ValueError, match=message):
            rate(scores, resamples=resamples)
