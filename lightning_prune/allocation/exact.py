"""Bringing shares into range and onto the budget."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["meet"]

TOLERANCE = 1e-12


def meet(
    shares: Sequence[float],
    budget: float,
    sizes: Sequence[int],
    lowest: float = 0.0,
    highest: float = 0.99,
) -> list[float]:
    """Shift all shares alike, those at a limit apart, until their mean by size is the budget.

    What clipping takes from one block is given to those that still have room.

    Raises:
        ValueError: the budget is outside the limits.
    """
    if not lowest <= budget <= highest:
        raise ValueError(f"no shares between {lowest:g} and {highest:g} make up {budget:g}")
    shares = [min(max(share, lowest), highest) for share in shares]
    total = sum(sizes)
    while True:
        missing = budget * total - sum(s * n for s, n in zip(shares, sizes, strict=True))
        if abs(missing) <= TOLERANCE * total:
            return shares
        limit = highest if missing > 0 else lowest
        free = [i for i, share in enumerate(shares) if share != limit]
        step = missing / sum(sizes[i] for i in free)
        for i in free:
            shares[i] = min(max(shares[i] + step, lowest), highest)
