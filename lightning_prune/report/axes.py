"""Where values stand in a picture: scales, their round numbers, and the axes that show them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_prune.report.numbers import short_text
from lightning_prune.report.svg import line, text, width_of

__all__ = [
    "Area",
    "Scale",
    "block_axis",
    "count_ticks",
    "log_ticks",
    "number_axis",
    "ticks",
    "told_apart",
    "value_axis",
]

STEPS = (
    (1.0,),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    tuple(step / 2 for step in range(2, 20)),
    tuple(step / 10 for step in range(10, 100)),
)
"""Of logarithmic scales: the numbers of each decade, from few to many."""


@dataclass(frozen=True)
class Area:
    """A part of a picture, in pixels from its upper left corner."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height


@dataclass(frozen=True)
class Scale:
    """From values between `low` and `high` to pixels between `start` and `end`.

    Evenly, or by their logarithms.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / ((high - low) or 1.0)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two values: multiples of a step of 1, 2 or 5 times ten^k."""
    span = (high - low) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / most))
    step = next(s * magnitude for s in (1, 2, 5, 10, 20) if span / (s * magnitude) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def told_apart(numbers: Sequence[float]) -> Callable[[float], str]:
    """How ticks are shown: as `short_text`, or with the digits that their distance needs."""
    if len({short_text(number) for number in numbers}) == len(numbers):
        return short_text
    step = min(b - a for a, b in itertools.pairwise(numbers))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return lambda value: f"{value:,.{digits}f}"


def count_ticks(full: int) -> list[float]:
    """Whole numbers up to a count: its quarters or thirds where whole, else round numbers."""
    for parts in (4, 3):
        if full and full % parts == 0:
            return [full * part / parts for part in range(parts + 1)]
    magnitude = 10 ** max(0, len(str(full)) - 2)
    step = next(m * magnitude for m in (1, 2, 5, 10, 20, 50) if full <= 5 * m * magnitude)
    return [float(tick) for tick in range(0, full + 1, step)]


def log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers around positive values; the first is below all of them, the last above."""
    low, high = min(values, default=1.0), max(values, default=10.0)
    first = math.floor(math.log10(low))
    numbers: list[float] = []
    for steps in STEPS:  # the coarsest that give enough lines
        marks = [s * 10.0**e for e in range(first - 1, min(first + 40, 300)) for s in steps]
        below = max((m for m in marks if m <= low * 0.98), default=low * 0.9)
        above = next((m for m in marks if m >= high * 1.02), high * 1.1)
        numbers = [m for m in marks if below <= m < above] + [above]
        if len(numbers) >= 5:
            break
    return numbers


def value_axis(
    area: Area,
    scale: Scale,
    numbers: Sequence[float],
    name: str = "",
    shown: Callable[[float], str] = short_text,
) -> list[str]:
    """Lines across an area at some values, with the values at the left; what they are beside it."""
    parts = []
    for number in numbers:
        y = scale(number)
        colour = "faint" if number == 0 else "rule"
        parts.append(line(area.left, y, area.right, y, colour))
        parts.append(text(area.left - 6, y + 4, shown(number), colour="faint", anchor="end"))
    if name:
        middle = (area.top + area.bottom) / 2
        parts.append(text(11, middle, name, colour="faint", anchor="middle", turned=True))
    return parts


def number_axis(area: Area, scale: Scale, numbers: Sequence[float], name: str) -> list[str]:
    """Values below an area, and what they are."""
    parts = [
        text(scale(n), area.bottom + 15, short_text(n), colour="faint", anchor="middle")
        for n in numbers
    ]
    return [*parts, text(area.left + area.width / 2, area.bottom + 30, name, anchor="middle")]


def block_axis(area: Area, indices: Sequence[int]) -> list[str]:
    """The numbers of blocks below an area, as many as there is room for."""
    band = area.width / max(len(indices), 1)
    widest = width_of(str(max(indices, default=0))) + 8
    step = next(s for s in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 128, 256) if s * band >= widest)
    parts = [
        text(
            area.left + band * (place + 0.5),
            area.bottom + 15,
            str(indices[place]),
            colour="faint",
            anchor="middle",
        )
        for place in range(0, len(indices), step)
    ]
    return [*parts, text(area.left + area.width / 2, area.bottom + 30, "block", anchor="middle")]
