"""Correlations against slow loops and known values; overlaps; distributions."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_prune.analysis.statistics import (
    Distribution,
    Overlap,
    average_ranks,
    cosine,
    pearson,
    spearman,
)


def slow_ranks(values: list[float]) -> list[float]:
    """How many are smaller, and half of the others that are equal, from 1 on."""
    return [
        1 + sum(other < value for other in values) + (sum(o == value for o in values) - 1) / 2
        for value in values
    ]


def slow_pearson(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    both = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return both / math.sqrt(spread)


def two_vectors(kinds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two related vectors of 60 numbers, of that many different values at most."""
    generator = torch.Generator().manual_seed(kinds)
    a_N = torch.randint(kinds, (60,), generator=generator).float()
    return a_N, a_N + torch.randint(kinds, (60,), generator=generator)


@pytest.mark.parametrize("kinds", [2, 5, 1000])
def test_spearman_shares_ranks_among_ties(kinds: int) -> None:
    """As a slow loop has it, with many ties, some, and hardly any."""
    a_N, b_N = two_vectors(kinds)
    assert average_ranks(a_N).tolist() == slow_ranks(a_N.tolist())
    slow = slow_pearson(slow_ranks(a_N.tolist()), slow_ranks(b_N.tolist()))
    assert spearman(a_N, b_N) == pytest.approx(slow, abs=1e-12)


def test_pearson_is_that_of_a_slow_loop() -> None:
    """Also far from zero, where float32 would lose the differences."""
    a_N, b_N = two_vectors(50)
    assert pearson(a_N, b_N) == pytest.approx(slow_pearson(a_N.tolist(), b_N.tolist()), abs=1e-12)
    far_N = 1e6 + a_N
    assert pearson(far_N, b_N) == pytest.approx(pearson(a_N, b_N), abs=1e-9)


def test_what_each_measure_sees() -> None:
    """Spearman any rising relation, Pearson any rising line, cosine only the direction."""
    a_N = torch.arange(1.0, 9.0)
    assert spearman(a_N, a_N.exp()) == pytest.approx(1)
    assert pearson(a_N, a_N.exp()) < 0.9
    assert pearson(a_N, 3 - 2 * a_N) == pytest.approx(-1)
    assert cosine(a_N, 5 * a_N) == pytest.approx(1)
    assert cosine(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])) == 0


def test_constant_scores_correlate_with_nothing() -> None:
    """Undefined, not 0 or 1 from rounding; so are scores of a single unit."""
    constant_N, rising_N = torch.full((7,), 0.1), torch.arange(7.0)
    assert math.isnan(pearson(constant_N, rising_N))
    assert math.isnan(spearman(rising_N, constant_N))
    assert math.isnan(pearson(torch.ones(1), torch.ones(1)))
    assert math.isnan(cosine(torch.zeros(3), torch.ones(3)))


def test_overlap_counts_what_both_keep_and_what_chance_would() -> None:
    """Of 8 the one keeps 4 and the other 6, 3 of them the same."""
    a_N = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0]).bool()
    b_N = torch.tensor([1, 1, 1, 0, 1, 1, 1, 0]).bool()
    overlap = Overlap.of(a_N, b_N)
    assert overlap == Overlap(a=4, b=6, both=3, total=8, chance=3.0)
    assert overlap.jaccard == 3 / 7
    assert overlap.jaccard_by_chance == 3 / 7
    assert overlap.removed_jaccard == 1 / 5
    twice = Overlap.sum([overlap, Overlap.of(a_N, a_N)])
    assert (twice.both, twice.total, twice.chance) == (7, 16, 5.0)
    assert math.isnan(Overlap.of(a_N | True, a_N | True).removed_jaccard)


@pytest.mark.parametrize("numbers", [1, 2, 10, 101])
def test_quantiles_are_those_of_torch(numbers: int) -> None:
    """Linearly interpolated; mean, spread and extremes too."""
    score_N = torch.rand(numbers, generator=torch.Generator().manual_seed(numbers)).double()
    found = Distribution.of(score_N, numbers)
    for fraction, value in found.quantiles.items():
        assert value == pytest.approx(float(score_N.quantile(fraction)))
    assert (found.min, found.max) == (float(score_N.min()), float(score_N.max()))
    assert found.mean == pytest.approx(float(score_N.mean()))
    assert found.std == pytest.approx(float(score_N.std(correction=0)))


@pytest.mark.parametrize("score_N", [torch.arange(100.0) - 30, torch.full((9,), 2.5)])
def test_every_number_is_in_one_bin(score_N: torch.Tensor) -> None:
    """Of scores that are all the same, too."""
    found = Distribution.of(score_N, len(score_N))
    assert sum(found.histogram) == len(score_N)
    assert len(found.edges) == len(found.histogram) + 1
    assert found.edges[0] <= found.min <= found.max <= found.edges[-1]
