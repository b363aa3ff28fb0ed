"""Bringing shares into range and onto the budget."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["meet"]

STEPS = 100  # halvings of the interval; more than a float can tell apart


def meet(
    shares: Sequence[float],
    budget: float,
    sizes: Sequence[int],
    lowest: float = 0.0,
    highest: float = 0.99,
) -> list[float]:
    """Shift all shares alike, clip them, and by so much that their mean by size is the budget.

    What clipping takes from some is thereby given to the others.

    Raises:
        ValueError: the budget is outside the limits.
    """
    if not lowest <= budget <= highest:
        raise ValueError(f"no shares between {lowest:g} and {highest:g} make up {budget:g}")

    def shifted(by: float) -> list[float]:
        return [min(max(share + by, lowest), highest) for share in shares]

    total = sum(sizes)
    below, above = lowest - max(shares), highest - min(shares)
    for _ in range(STEPS):
        middle = (below + above) / 2
        reached = sum(s * n for s, n in zip(shifted(middle), sizes, strict=True)) / total
        below, above = (middle, above) if reached < budget else (below, middle)
    return shifted(above)
