"""Figures as a reader wants them: few digits, and a dash where there is nothing."""

from __future__ import annotations

import math
from typing import Any

__all__ = [
    "count_text",
    "finite",
    "perplexity_text",
    "roughly",
    "seconds_text",
    "size_text",
    "times",
    "unique_text",
]


def times(value: float | None, dense: float | None) -> str:
    """A value in multiples of the dense model's; empty where that says nothing."""
    if value is None or not dense or not math.isfinite(value / dense):
        return ""
    return f"{value / dense:.2f}x" if value < 100 * dense else f"{value / dense:.0e}x"


def roughly(value: float | None, dense: float | None) -> str:
    """As `times`, in two digits: of speeds that were measured, more would be noise."""
    if value is None or not dense or not math.isfinite(value / dense):
        return ""
    share = value / dense
    return f"{share:.0f}x" if share >= 9.95 else f"{share:#.2g}x"


def perplexity_text(value: float | None) -> str:
    """Four or five digits."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.3f}"
    if value < 1e7:
        return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
    return f"{value:.2e}"


def count_text(value: int) -> str:
    """With a unit: thousands, millions, billions."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if value >= unit:
            return f"{value / unit:.2f}{name}"
    return str(value)


def size_text(value: int) -> str:
    """Bytes as MB or GB (millions, billions)."""
    unit, name = (10**9, "GB") if value >= 10**10 else (10**6, "MB")
    return f"{value / unit:,.2f} {name}" if value < 100 * unit else f"{value / unit:,.0f} {name}"


def seconds_text(value: float) -> str:
    """As milliseconds where it is short."""
    return f"{value * 1000:,.2f} ms" if value < 1 else f"{value:,.2f} s"


def unique_text(share: float) -> str:
    """The share of unique tokens of what a model says; it may say nothing."""
    return f"{share:.0%} unique" if share else "says nothing"


def finite(value: Any) -> Any:
    """The value for JSON, which has no infinite or undefined numbers: they become texts."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
