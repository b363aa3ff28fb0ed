"""From wished numbers of units to whole ones."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from lightning_prune import GlobalStandardised, Uniform
from lightning_prune.allocation import Pool, most
from lightning_prune.allocation.counts import counts_by_block, unit_counts
from lightning_prune.allocation.global_standardised import global_counts

RATIOS = [round(0.05 * step, 2) for step in range(1, 19)]


def blocks(
    count: int = 4, groups: int = 4, neurons: int = 172, round_to: int = 1, min_units: int = 1
) -> list[Pool]:
    """The pools of a small GQA model: a group weighs as much as 16 neurons."""
    return [
        pool
        for block in range(count)
        for pool in (
            Pool(block, "group", groups, 3072, min_units),
            Pool(block, "neuron", neurons, 192, min_units, round_to),
        )
    ]


def removed(pools: list[Pool], counts: list[int]) -> int:
    return sum(pool.size * count for pool, count in zip(pools, counts, strict=True))


def allowed(pool: Pool) -> list[int]:
    """By trying all: which numbers may go."""
    return [
        gone
        for gone in range(pool.units + 1)
        if gone == 0
        or (pool.units - gone >= pool.min_units and (pool.units - gone) % pool.round_to == 0)
    ]


@pytest.mark.parametrize(
    "pool",
    [
        Pool(0, "neuron", units, 1, min_units, round_to)
        for units, min_units, round_to in itertools.product([1, 7, 64, 172], [1, 5], [1, 8, 64])
    ],
    ids=str,
)
def test_a_pool_takes_the_steps_that_are_allowed(pool: Pool) -> None:
    """Not more than can go, and always a multiple that stays."""
    steps = [0]
    while (above := pool.above(steps[-1])) is not None:
        steps.append(above)
    assert steps == allowed(pool)
    assert pool.most == steps[-1]
    for gone in range(pool.units):
        assert pool.below(gone) == max(step for step in steps if step <= gone)


@pytest.mark.parametrize("round_to", [1, 16, 64])
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_target_is_met_within_one_step(ratio: float, round_to: int) -> None:
    """For any wish, also one that is far from what may go."""
    random.seed(int(100 * ratio))
    pools = blocks(round_to=round_to)
    total = sum(pool.parameters for pool in pools)
    target = min(ratio * total, most(pools))
    for spread in (0.0, 0.3, 3.0):
        wished = [ratio * p.units * (1 + random.uniform(-spread, spread)) for p in pools]
        counts = unit_counts(pools, wished, target)
        assert all(c in allowed(p) for p, c in zip(pools, counts, strict=True))
        assert abs(removed(pools, counts) - target) <= 192 * max(round_to, 172 % round_to) / 2


@pytest.mark.parametrize("ratio", RATIOS)
def test_equal_blocks_stay_equal(ratio: float) -> None:
    """Uniform: within half a neuron in every block, and all alike."""
    pools = blocks()
    total = sum(pool.parameters for pool in pools)
    target = ratio * total
    counts = Uniform().unit_counts(pools, [], [ratio] * len(pools), target)
    assert len(set(counts[::2])) == len(set(counts[1::2])) == 1
    assert abs(removed(pools, counts) - target) <= 4 * 192 / 2
    assert abs(counts[0] - ratio * 4) <= 0.5 or counts[0] == 3


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_every_block_gives_its_own_share(ratio: float) -> None:
    """Within a neuron, and all together within half of one, whatever groups make up of it."""
    pools = blocks()
    total = sum(pool.parameters for pool in pools)
    shares = [ratio + by for by in (-0.1, -0.03, 0.03, 0.1) for _ in range(2)]
    counts = counts_by_block(pools, shares, ratio * total)
    assert abs(removed(pools, counts) - ratio * total) <= 192 / 2
    for first in range(0, len(pools), 2):
        block = pools[first : first + 2]
        goal = shares[first] * sum(pool.parameters for pool in block)
        assert abs(removed(block, counts[first : first + 2]) - goal) <= 192


@pytest.mark.parametrize("ratio", RATIOS)
def test_blocks_with_little_left_leave_it_to_the_others(ratio: float) -> None:
    """Uniform on blocks that were cut before: the budget is met, the others stay alike."""
    sizes = [(1, 2), (4, 50), (4, 172), (4, 172)]
    pools = [
        pool
        for block, (groups, neurons) in enumerate(sizes)
        for pool in (Pool(block, "group", groups, 3072), Pool(block, "neuron", neurons, 192))
    ]
    target = min(ratio * sum(pool.parameters for pool in pools), most(pools))
    counts = Uniform().unit_counts(pools, [], [ratio] * len(pools), target)
    assert abs(removed(pools, counts) - target) <= len(sizes) * 192 / 2
    assert counts[4:6] == counts[6:8]


@pytest.mark.parametrize("round_to", [1, 16])
@pytest.mark.parametrize("ratio", RATIOS)
def test_units_of_all_blocks_meet_the_target(ratio: float, round_to: int) -> None:
    """Compared with each other, with a limit in every block."""
    torch.manual_seed(0)
    pools = blocks(round_to=round_to, min_units=2)
    scores = [torch.rand(pool.units) + pool.block for pool in pools]
    target = min(ratio * sum(pool.parameters for pool in pools), most(pools))
    for standardise in (True, False):
        counts = GlobalStandardised(standardise=standardise).unit_counts(
            pools, scores, [ratio] * len(pools), target
        )
        assert all(c in allowed(p) for p, c in zip(pools, counts, strict=True))
        assert abs(removed(pools, counts) - target) <= 192 * max(round_to, 172 % round_to) / 2


def test_the_lowest_scores_of_all_go() -> None:
    """By a sorted list; what a limit keeps is made up for by the next ones."""
    scores = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 0.2, 2.5])]
    assert global_counts(scores, [1, 1], [3, 3], 3) == [1, 2]
    assert global_counts(scores, [1, 1], [3, 1], 3) == [2, 1]
    assert global_counts(scores, [1, 10], [3, 3], 2) == [2, 0]  # a coarse unit does not fit


def test_scores_of_one_value_are_no_error() -> None:
    """Nothing to standardise by: lower blocks go first."""
    pools = blocks(count=2)
    scores = [torch.ones(pool.units) for pool in pools]
    counts = GlobalStandardised().unit_counts(pools, scores, [0.5] * 4, 192 * 100)
    assert removed(pools, counts) == 192 * 100
