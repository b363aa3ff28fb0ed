"""Which of two distributions is better, and by how much."""

from __future__ import annotations

import math

import pytest

from lightning_prune.report.search import Trial, gain_of


def trial(name: str, losses: list[float]) -> Trial:
    perplexity = math.exp(sum(losses) / len(losses))
    return Trial(name, [0.3, 0.3], perplexity, perplexity, losses)


def test_the_gain_is_paired_by_window() -> None:
    """Windows differ more from each other than two distributions do."""
    before = trial("uniform", [10.0, 50.0, 30.0, 90.0])
    after = trial("1", [9.0, 48.0, 29.0, 88.0])
    mean, error = gain_of(after, before)
    assert mean == pytest.approx((1 + 2 + 1 + 2) / 4)
    assert error == pytest.approx(math.sqrt(1 / 3) / math.sqrt(4))
    assert after.beats(before)
    assert not before.beats(after)


def test_what_chance_explains_is_no_gain() -> None:
    """Lower on the whole, by one window alone."""
    before = trial("uniform", [10.0, 50.0, 30.0, 90.0])
    after = trial("1", [11.0, 51.0, 31.0, 80.0])
    assert after.perplexity < before.perplexity
    assert not after.beats(before)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_trial_without_a_result_beats_nothing(number: float) -> None:
    """And loses to any that has one."""
    failed, some = Trial("found", [0.3], number, number, [number]), trial("as given", [1.0])
    assert some.beats(failed)
    assert not failed.beats(some)
    assert not failed.beats(failed)
