"""How many of so many: the one place where a fraction becomes a count."""

from __future__ import annotations

import math

__all__ = ["removed_count"]


def removed_count(total: int, fraction: float) -> int:
    """The largest count that is at most `fraction` of `total`.

    Rounding of binary fractions is not taken for a shortfall: 0.29 of 100 is 29, not 28.
    """
    return math.floor(total * fraction * (1 + 1e-12))
