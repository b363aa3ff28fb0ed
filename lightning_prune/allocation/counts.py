"""From wished numbers of units to whole ones that meet a budget of parameters.

A unit of one kind holds many more parameters than one of another: a GQA group as many as hundreds
of neurons. So the kinds are rounded from the coarsest to the finest, and the finest makes up for
what the others are off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightning_prune.allocation.exact import meet

__all__ = ["Pool", "counts_by_block", "most", "unit_counts"]


@dataclass(frozen=True)
class Pool:
    """The units of one kind in one block.

    Attributes:
        block: the block's index.
        kind: "group" or "neuron".
        units: how many there are.
        size: parameters of each.
        min_units: how many must stay.
        round_to: of what the number that stays must be a multiple, unless all stay.
    """

    block: int
    kind: str
    units: int
    size: int
    min_units: int = 1
    round_to: int = 1

    @property
    def parameters(self) -> int:
        """Parameters of all its units."""
        return self.units * self.size

    @property
    def most(self) -> int:
        """The most units that can go."""
        kept = -(-max(self.min_units, 1) // self.round_to) * self.round_to
        return max(self.units - kept, 0)

    def below(self, removed: float) -> int:
        """The largest number of units that can go and is at most `removed`."""
        if removed < self.units % self.round_to:
            return 0
        kept = -(-(self.units - min(removed, self.most)) // self.round_to) * self.round_to
        return max(self.units - int(kept), 0)

    def above(self, removed: int) -> int | None:
        """The next larger number of units that can go."""
        if removed >= self.most:
            return None
        return self.units - (self.units - removed - 1) // self.round_to * self.round_to


def most(pools: Sequence[Pool]) -> int:
    """The most parameters that can go."""
    return sum(pool.most * pool.size for pool in pools)


def unit_counts(pools: Sequence[Pool], wished: Sequence[float], target: float) -> list[int]:
    """How many units of each pool go, so that `target` parameters go, or all that can.

    The result is off by at most half of the smallest step that any pool can make.

    Args:
        pools: coarse and fine units together.
        wished: how many units of each should go.
        target: how many parameters go altogether.
    """
    counts = [0] * len(pools)
    kinds = list(dict.fromkeys(p.kind for p in sorted(pools, key=lambda p: p.size, reverse=True)))
    for kind in kinds:
        members = [i for i, pool in enumerate(pools) if pool.kind == kind]
        if kind == kinds[-1]:
            parameters = target - _removed(pools, counts)
        else:
            parameters = sum(wished[i] * pools[i].size for i in members)
        parts = [pools[i] for i in members]
        for i, count in zip(
            members, _of_kind(parts, [wished[i] for i in members], parameters), strict=True
        ):
            counts[i] = count
    return _closed(pools, counts, wished, target)


def counts_by_block(pools: Sequence[Pool], shares: Sequence[float], target: float) -> list[int]:
    """How many units of each pool go, so that every block gives its own share.

    What whole units leave a block off its share by is made up for in the next, so that `target`
    parameters go altogether, or all that can.

    Args:
        pools: coarse and fine units together.
        shares: the fraction of each pool that should go; alike in the pools of a block.
        target: how many parameters go altogether.
    """
    counts = [0] * len(pools)
    asked = [share * pool.parameters for share, pool in zip(shares, pools, strict=True)]
    scale, left = target / (sum(asked) or 1.0), 0.0
    for block in dict.fromkeys(pool.block for pool in pools):
        members = [i for i, pool in enumerate(pools) if pool.block == block]
        parts = [pools[i] for i in members]
        wished = [scale * shares[i] * pools[i].units for i in members]
        left += scale * sum(asked[i] for i in members)
        found = unit_counts(parts, wished, left)
        left -= _removed(parts, found)
        for i, count in zip(members, found, strict=True):
            counts[i] = count
    return counts


def _of_kind(pools: Sequence[Pool], wished: Sequence[float], target: float) -> list[int]:
    """One kind: shift what is wished until it makes up the target, and round by remainders."""
    limit = most(pools)
    if limit == 0:
        return [0] * len(pools)
    target = min(max(target, 0.0), limit)
    open_ = [i for i, pool in enumerate(pools) if pool.most > 0]
    parts = [pools[i] for i in open_]
    shares = meet(
        [min(wished[i] / pools[i].most, 1.0) for i in open_],
        target / limit,
        [part.most * part.size for part in parts],
        high=1.0,
    )
    exact = [0.0] * len(pools)
    for i, share in zip(open_, shares, strict=True):
        exact[i] = share * pools[i].most
    counts = [pool.below(value + 1e-9) for pool, value in zip(pools, exact, strict=True)]
    return _closed(pools, counts, exact, target)


def _closed(
    pools: Sequence[Pool], counts: Sequence[int], wished: Sequence[float], target: float
) -> list[int]:
    """Steps up while they bring the sum nearer to the target, the most wished first."""
    counts = list(counts)
    while True:
        left = target - _removed(pools, counts)
        steps = [step for step in _steps(pools, counts, wished) if step.parameters < 2 * left]
        if not steps:
            return counts
        best = max(steps, key=lambda step: (step.wish, -step.pool))
        counts[best.pool] = best.count


@dataclass(frozen=True)
class _Step:
    pool: int
    count: int
    parameters: int
    wish: float


def _steps(
    pools: Sequence[Pool], counts: Sequence[int], wished: Sequence[float]
) -> Iterator[_Step]:
    for i, (pool, count) in enumerate(zip(pools, counts, strict=True)):
        above = pool.above(count)
        if above is not None:
            wish = (wished[i] - count) / (above - count)
            yield _Step(i, above, (above - count) * pool.size, wish)


def _removed(pools: Sequence[Pool], counts: Sequence[int]) -> int:
    return sum(pool.size * count for pool, count in zip(pools, counts, strict=True))
