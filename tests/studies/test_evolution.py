"""Evolution of levels: the budget holds, the best is found, chance is that of the seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from lightning_prune.studies.evolution import Evolution, Levels, downhill

EVEN = [[10.0 * level for level in range(9)]] * 6
UNEVEN = [[21.0 * level for level in range(9)], [5.0 * level for level in range(9)]] * 3


def cost(levels: Levels) -> float:
    """Slots that differ in how much they lose by each level, more by every further one."""
    return sum((slot + 1) * level**2 for slot, level in enumerate(levels))


def judged(levels: Sequence[Levels], windows: int) -> list[float]:
    return [cost(one) for one in levels]


def evolution(removed: Sequence[Sequence[float]], target: float, seed: int = 0) -> Evolution:
    return Evolution(removed, target, judged, (1, 2), 8, random.Random(seed))


@pytest.mark.parametrize("removed", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_what_is_mutated_keeps_the_budget(removed: list[list[float]]) -> None:
    """Exactly, where all steps are alike; else within half of the largest step."""
    target = sum(slot[4] for slot in removed)
    search = evolution(removed, target)
    parent = search.near([slot[4] for slot in removed])
    assert parent == (4,) * 6
    for _ in range(500):
        child = search.mutated(parent)
        assert all(0 <= level < 9 for level in child)
        assert child != parent
        assert search.off(child) == 0 if removed is EVEN else abs(search.off(child)) <= 21 / 2
        parent = child


def test_the_nearest_levels_make_up_the_target() -> None:
    """Whatever was wished; what cannot be is refused."""
    search = evolution(EVEN, 240.0)
    assert search.off(search.near([80.0, 70.0, 42.0, 31.0, 9.0, 0.0])) == 0
    assert search.off(search.near([0.0] * 6)) == 0
    with pytest.raises(ValueError, match="no levels make up 600"):
        evolution(EVEN, 600.0).near([0.0] * 6)


def test_the_best_levels_are_found() -> None:
    """Those of an exhaustive search."""
    every = (one for one in itertools.product(range(9), repeat=6) if sum(one) == 24)
    lowest = min(map(cost, every))
    search = evolution(EVEN, 240.0)
    found = search.run({"uniform": (4,) * 6}, trials=200)
    assert cost(found) == lowest
    assert search.off(found) == 0


def test_the_same_seed_finds_the_same() -> None:
    """And asks for the same on the way; no more trials than asked for."""
    one, other, third = (evolution(EVEN, 240.0, seed) for seed in (0, 0, 1))
    for search in (one, other, third):
        search.run({"uniform": (4,) * 6}, trials=40)
    assert one.tried == other.tried
    assert one.tried != third.tried
    first = [tried for tried in one.tried if tried.windows == 1 and tried.name != "here"]
    assert 30 < len(first) <= 40  # a slot at its first or last level is tried one way


def test_few_trials_are_children_alone() -> None:
    """Fewer than it takes to try every slot; the parent stays where no child is better."""
    search = evolution(EVEN, 240.0)
    found = search.run({"uniform": (4,) * 6}, trials=5)
    assert [tried.name for tried in search.tried if tried.windows == 1] == [*"12345"]
    assert cost(found) <= cost((4,) * 6)


def test_downhill_is_where_one_more_costs_the_same() -> None:
    """Of parabolas: no change at all, and no other choice of changes is lower."""
    curves = [(3.0, 1.0), (-1.0, 0.5), (0.5, 2.0)]
    rises = [{x: s * x + c * x * x for x in (-2.0, 2.0)} for s, c in curves]
    changes = downhill(rises)
    assert sum(changes) == pytest.approx(0.0, abs=1e-9)

    def rise(x: Sequence[float]) -> float:
        return sum(s * one + c * one * one for (s, c), one in zip(curves, x, strict=True))

    for a, b in itertools.product((-0.1, 0.0, 0.1), repeat=2):
        other = [changes[0] + a, changes[1] + b, changes[2] - a - b]
        if all(abs(one) <= 2 for one in other):
            assert rise(changes) <= rise(other) + 1e-9


def test_downhill_goes_no_further_than_was_measured() -> None:
    """Where a rise curves down, or was measured on one side, too."""
    changes = downhill([{-1.0: -5.0, 1.0: -9.0}, {-1.0: 0.1, 1.0: 0.3}, {1.0: 4.0}])
    assert changes[0] == pytest.approx(1.0)
    assert changes[1] == pytest.approx(-1.0)
    assert changes[2] == pytest.approx(0.0, abs=1e-9)
