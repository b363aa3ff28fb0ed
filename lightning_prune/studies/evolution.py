"""A search over levels at one budget, by mutation and selection.

Source: Sieberling et al., "EvoPress", arXiv 2410.14649, algorithm 1. Each generation mutates one
parent: a few slots go a level up, and others down for it. All children are judged on little text,
the best of them on more, and the best one of those takes the parent's place if it is better.

Differs: levels may remove different amounts, so that what a mutation is off the budget by is
settled by other slots. The search does not begin blind: each slot alone is tried higher and
lower, and one of those it begins with goes the way that these trials point. (A mutation that moves
two slots finds one good move in many trials; the trials of single slots find all at once.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Evolution", "Levels", "Tried", "downhill"]

Levels = tuple[int, ...]
"""By slot."""

Judge = Callable[[Sequence[Levels], int], list[float]]
"""(some levels, on how many windows) to a number of each; the lowest is the best."""

SWITCHES = 3
"""So many slots at most go up in one mutation."""
SURVIVING = 4
"""Of so many children, one is judged on more text."""
REACH = 2
"""By so many levels a single slot is tried higher and lower."""
ATTEMPTS, HALVINGS = 100, 100


@dataclass(frozen=True)
class Tried:
    """What was tried.

    Attributes:
        name: where it comes from.
        levels: of each slot.
        windows: on how many windows it was judged.
        value: what came of it.
    """

    name: str
    levels: Levels
    windows: int
    value: float


class Evolution:
    """Levels of slots that together remove what was asked for.

    Args:
        removed: by slot and level, what goes; rising.
        target: what goes altogether.
        judge: what is to be low.
        stages: on how many windows children are judged, from few to more.
        children: of each generation.
        rng: of the mutations.

    Attributes:
        tried: all that was judged, in order.
        tolerance: what a model may be off the target by: half of the largest step of any slot.
            Where all steps are alike, that is nothing.
    """

    def __init__(
        self,
        removed: Sequence[Sequence[float]],
        target: float,
        judge: Judge,
        stages: Sequence[int],
        children: int,
        rng: random.Random,
    ) -> None:
        self.removed, self.target, self._judge = removed, target, judge
        self._stages, self._children, self._rng = tuple(stages), children, rng
        steps = [b - a for slot in removed for a, b in zip(slot, slot[1:], strict=False)]
        self._near, self.tolerance = min(steps) / 2, max(steps) / 2
        self.tried: list[Tried] = []

    def run(self, starts: Mapping[str, Levels], trials: int) -> Levels:
        """The best levels after so many trials.

        Args:
            starts: what to begin with, by name; the best of them is the first parent.
            trials: how many others are judged: of single slots, as long as that is of use, and then
                children.
        """
        best = self._best(self._judged(starts, self._stages[-1]))
        each, left, useful = 2 * len(self.removed), trials, True
        while useful and left >= each:
            pointed = self._pointed(best)
            left, useful = left - each, pointed.value < best.value
            best = pointed if useful else best
        while left > 0:
            count = min(self._children, left)
            names = (f"{trials - left + i + 1}" for i in range(count))
            child = self._selected({name: self.mutated(best.levels) for name in names})
            best = child if child.value < best.value else best
            left -= count
        return best.levels

    # --- what is judged ---

    def _selected(self, children: Mapping[str, Levels]) -> Tried:
        """The best of some, by all stages; each leaves fewer for the next."""
        judged = self._judged(children, self._stages[0])
        for windows in self._stages[1:]:
            survivors = sorted(judged, key=lambda one: one.value)
            survivors = survivors[: -(-len(survivors) // SURVIVING)]
            judged = self._judged({one.name: one.levels for one in survivors}, windows)
        return self._best(judged)

    def _judged(self, levels: Mapping[str, Levels], windows: int) -> list[Tried]:
        values = self._judge(list(levels.values()), windows)
        tried = [
            Tried(name, one, windows, value)
            for (name, one), value in zip(levels.items(), values, strict=True)
        ]
        self.tried += tried
        return tried

    def _best(self, tried: Sequence[Tried]) -> Tried:
        return min(tried, key=lambda one: one.value)

    # --- one slot at a time ---

    def _pointed(self, center: Tried) -> Tried:
        """Levels where trials of single slots point from here, judged on all windows."""
        trials: dict[tuple[int, int], Levels] = {}
        for slot, level in enumerate(center.levels):
            for other in (max(level - REACH, 0), min(level + REACH, len(self.removed[slot]) - 1)):
                if other != level:
                    moved = (*center.levels[:slot], other, *center.levels[slot + 1 :])
                    trials[slot, other] = moved
        names = {f"slot {slot} at {other}": moved for (slot, other), moved in trials.items()}
        here, *values = self._judged({"here": center.levels} | names, self._stages[0])
        rises: list[dict[float, float]] = [{} for _ in self.removed]
        for (slot, other), one in zip(trials, values, strict=True):
            change = self.removed[slot][other] - self.removed[slot][center.levels[slot]]
            rises[slot][change] = one.value - here.value
        wished = [
            slot[level] + change
            for slot, level, change in zip(
                self.removed, center.levels, downhill(rises), strict=True
            )
        ]
        return self._judged({"pointed": self.near(wished)}, self._stages[-1])[0]

    # --- the budget ---

    def off(self, levels: Levels) -> float:
        """By how much these levels remove more than the target."""
        gone = sum(slot[level] for slot, level in zip(self.removed, levels, strict=True))
        return gone - self.target

    def near(self, wished: Sequence[float]) -> Levels:
        """The levels that remove about what is wished of each slot, and together the target.

        Raises:
            ValueError: no levels near these make up the target.
        """
        nearest = tuple(
            min(range(len(slot)), key=lambda level: abs(slot[level] - wish))
            for slot, wish in zip(self.removed, wished, strict=True)
        )
        for _ in range(ATTEMPTS):
            if (levels := self._settled(nearest, frozenset())) is not None:
                return levels
        raise ValueError(
            f"no levels make up {self.target:,.0f} of what can be removed; take smaller steps"
        )

    def mutated(self, parent: Levels) -> Levels:
        """Other levels that remove as much; the parent's own if none were found."""
        for _ in range(ATTEMPTS):
            child, moved = list(parent), set[int]()
            for _ in range(min(self._rng.randint(1, SWITCHES) for _ in range(2))):
                slot, way = self._rng.randrange(len(child)), self._rng.choice((-1, 1))
                if 0 <= child[slot] + way < len(self.removed[slot]):
                    child[slot] += way
                    moved.add(slot)
            settled = self._settled(tuple(child), moved)
            if settled is not None and settled != parent:
                return settled
        return parent

    def _settled(self, levels: Levels, fixed: Collection[int]) -> Levels | None:
        """Single steps of other slots, in random order, while they bring the sum nearer."""
        settled, off = list(levels), self.off(levels)
        free = [slot for slot in range(len(levels)) if slot not in fixed]
        stepped = True
        while abs(off) > self._near and stepped:
            stepped = False
            self._rng.shuffle(free)
            for slot in free:
                level = settled[slot] + (-1 if off > 0 else 1)
                if abs(off) <= self._near or not 0 <= level < len(self.removed[slot]):
                    continue
                change = self.removed[slot][level] - self.removed[slot][settled[slot]]
                if abs(off + change) < abs(off):
                    settled[slot], off, stepped = level, off + change, True
        return tuple(settled) if abs(off) <= self.tolerance else None


def downhill(rises: Sequence[Mapping[float, float]]) -> list[float]:
    """The changes that together are none, at which the sum of rises is lowest.

    Each rise is taken for a parabola through zero and the two that were measured; where these curve
    down, or one was measured alone, for one that curves as the others do on average. No change goes
    further than what was measured.

    Args:
        rises: by slot, what was found at some changes of it.
    """
    curves = [_parabola(points) for points in rises]
    upward = [curve for _, curve in curves if curve > 0]
    usual = sum(upward) / len(upward) if upward else 1.0
    curves = [(slope, curve if curve > 0 else usual) for slope, curve in curves]
    limits = [(min(points, default=0.0), max(points, default=0.0)) for points in rises]
    limits = [(min(low, 0.0), max(high, 0.0)) for low, high in limits]

    def changes(price: float) -> list[float]:
        """Where one more of any slot costs the same."""
        return [
            min(max((price - slope) / (2 * curve), low), high)
            for (slope, curve), (low, high) in zip(curves, limits, strict=True)
        ]

    ends = [s + 2 * c * end for (s, c), pair in zip(curves, limits, strict=True) for end in pair]
    below, above = min(ends), max(ends)
    for _ in range(HALVINGS):
        middle = (below + above) / 2
        below, above = (middle, above) if sum(changes(middle)) < 0 else (below, middle)
    return changes((below + above) / 2)


def _parabola(points: Mapping[float, float]) -> tuple[float, float]:
    """Slope and half the curvature at zero of the parabola through zero and these."""
    if len(points) < 2:
        return sum(rise / change for change, rise in points.items()), 0.0
    (a, rise_a), (b, rise_b) = points.items()
    curve = (rise_b / b - rise_a / a) / (b - a)
    return rise_a / a - curve * a, curve
