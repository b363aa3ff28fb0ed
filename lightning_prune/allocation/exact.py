"""Bringing shares into range and onto the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["meet", "meet_in_proportion"]

STEPS = 100  # halvings of the interval; more than a float can tell apart


def meet(
    shares: Sequence[float],
    budget: float,
    sizes: Sequence[int],
    low: float = 0.0,
    high: float = 0.99,
) -> list[float]:
    """Shift all shares alike, clip them, and by so much that their mean by size is the budget.

    What clipping takes from some is thereby given to the others.

    Raises:
        ValueError: the budget is outside the limits.
    """

    def shifted(by: float) -> list[float]:
        return [min(max(share + by, low), high) for share in shares]

    between = low - max(shares), high - min(shares)
    return _meeting(shifted, between, budget, sizes, (low, high))


def meet_in_proportion(
    wishes: Sequence[float],
    budget: float,
    sizes: Sequence[int],
    low: float = 0.0,
    high: float = 0.99,
) -> list[float]:
    """Multiply all wishes alike, clip them, and by so much that their mean by size is the budget.

    What clipping takes from some is thereby given to the others, in proportion to their wishes.

    Args:
        wishes: not negative; where all are zero, all are taken to be equal.
        budget: the mean to reach.
        sizes: what each counts.
        low: least value of a share.
        high: largest value of a share.

    Raises:
        ValueError: the budget is outside the limits.
    """
    # Something for those without a wish, so that a large budget can be met.
    tiny = 1e-9 * (max(wishes) or 1.0)
    logs = [math.log(wish + tiny) for wish in wishes]

    def scaled(by: float) -> list[float]:
        return [min(max(math.exp(min(log + by, 0.0)), low), high) for log in logs]

    between = -max(logs) - 60, -min(logs) + 1
    return _meeting(scaled, between, budget, sizes, (low, high))


def _meeting(
    shares_at: Callable[[float], list[float]],
    between: tuple[float, float],
    budget: float,
    sizes: Sequence[int],
    limits: tuple[float, float],
) -> list[float]:
    """The shares at the place where their mean by size is the budget, found by halving."""
    if not limits[0] <= budget <= limits[1]:
        raise ValueError(f"no shares between {limits[0]:g} and {limits[1]:g} make up {budget:g}")
    total, (below, above) = sum(sizes), between
    for _ in range(STEPS):
        middle = (below + above) / 2
        reached = sum(s * n for s, n in zip(shares_at(middle), sizes, strict=True)) / total
        below, above = (middle, above) if reached < budget else (below, middle)
    return shares_at(above)
