"""Figures as a reader wants them: few digits, and a dash where there is nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = [
    "count_text",
    "duration_text",
    "finite",
    "moment_text",
    "of_text",
    "perplexity_text",
    "rate_text",
    "roughly",
    "seconds_text",
    "share_text",
    "short_text",
    "size_text",
    "times",
    "unique_text",
]


def times(value: float | None, dense: float | None) -> str:
    """A value in multiples of the dense model's; empty where that says nothing."""
    if value is None or not dense or not math.isfinite(value / dense):
        return ""
    share = value / dense
    if 0 < abs(share) < 0.095:
        return f"{share:.2g}x"
    return f"{share:.2f}x" if share < 100 else f"{share:.0e}x"


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


def rate_text(value: float) -> str:
    """So many a second: whole from a hundred on, three digits below."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def count_text(value: int) -> str:
    """With a unit: thousands, millions, billions."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if value >= unit:
            return f"{value / unit:.2f}{name}"
    return str(value)


def short_text(value: float) -> str:
    """A number beside an axis, or above a bar: whole, or three digits."""
    if value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.1e}"


def size_text(value: int) -> str:
    """Bytes as kB, MB or GB (thousands, millions, billions)."""
    unit, name = (10**9, "GB") if value >= 10**10 else (10**6, "MB")
    if 0 < abs(value) < 10**5:
        unit, name = 10**3, "kB"
    return f"{value / unit:,.2f} {name}" if value < 100 * unit else f"{value / unit:,.0f} {name}"


def seconds_text(value: float) -> str:
    """As milliseconds where it is short."""
    return f"{value * 1000:,.2f} ms" if value < 1 else f"{value:,.2f} s"


def duration_text(seconds: float) -> str:
    """Of a part of a run: seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment_text(moment: str) -> str:
    """A time in ISO 8601 to the minute, with its zone if it has one; other words as they are."""
    try:
        return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return moment


def of_text(kept: Sequence[int], dense: Sequence[int]) -> str:
    """What is kept, of what there was."""
    total, before = sum(kept), sum(dense)
    return f"{total:,} of {before:,}" + (f" ({total / before:.1%})" if before else "")


def share_text(share: float) -> str:
    """A percentage that says 0% and 100% only of none and all; a dash if it is undefined."""
    if math.isnan(share):
        return "-"
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{share:.1%}"


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
