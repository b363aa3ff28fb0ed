"""A line for each of several things over columns, with marks, intervals and the dense model.

Lines differ by colour and by the shape of their marks, so that they are told apart without colour
too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lightning_prune.report.axes import Area, Scale, log_ticks, ticks, value_axis
from lightning_prune.report.plots import Key, Plot
from lightning_prune.report.svg import SERIES, line, mark, text, width_of

__all__ = ["Point", "series_plot"]

HEIGHT, COLUMN, BELOW = 300.0, 110.0, 46.0


class Point(NamedTuple):
    """A value, and the ends of its interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None


def series_plot(
    title: str,
    name: str,
    dense: Point,
    targets: Sequence[str],
    series: Mapping[str, Sequence[Point | None]],
    axis: str,
    *,
    logarithmic: bool,
    shown: Callable[[float], str],
    tick: Callable[[float], str],
    height: float = HEIGHT,
) -> Plot:
    """Draw one line a name over the targets, and the dense model as a dashed line.

    Patterns ("2:4") are not on one scale with sparsities, so lines do not run across their border.

    Args:
        title: what is shown.
        name: of the values.
        dense: the dense model's.
        targets: what was asked for, from left to right.
        series: by name, the value at every target; None where there is none.
        axis: what the targets are.
        logarithmic: the height is the logarithm of the value; those that have none are left out.
        shown: a value as text.
        tick: the same beside the axis.
        height: in pixels.
    """
    points = [point for line in series.values() for point in line if point is not None]
    values = [v for point in (*points, dense) for v in point if v is not None and math.isfinite(v)]
    if logarithmic:
        numbers = log_ticks([v for v in values if v > 0])
        low, high = numbers[0], numbers[-1]
    else:
        low, high = min([0.0, *values]), (max([0.0, *values]) or 1.0) * 1.05
        numbers = ticks(low, high)
    left = max(60.0, max(width_of(tick(n)) for n in numbers) + 34)
    area = Area(left, 8, max(500.0, COLUMN * len(targets)), height)
    scale = Scale(low, high, area.bottom, area.top, logarithmic=logarithmic)
    body = value_axis(area, scale, numbers, name, tick)
    body.append(line(area.left, area.bottom, area.right, area.bottom, "faint"))
    column = area.width / max(len(targets), 1)
    for i, target in enumerate(targets):
        x = area.left + column * (i + 0.5)
        body.append(text(x, area.bottom + 18, target, anchor="middle"))
    middle = area.left + area.width / 2
    body.append(text(middle, area.bottom + 36, axis, size=10, colour="faint", anchor="middle"))
    if math.isfinite(dense.value):
        y, words = scale(dense.value), f"dense {shown(dense.value)}"
        body.append(line(area.left, y, area.right, y, "ink", width=1, dashed=True))
        body.append(text(area.left + 6, y + 14, words, size=10, colour="faint", halo=True))
    apart = min(14.0, 0.6 * column / max(len(series), 1))
    for order, (label, row) in enumerate(series.items()):
        aside = apart * (order - (len(series) - 1) / 2)  # or marks would hide each other
        xs = [area.left + column * (i + 0.5) + aside for i in range(len(targets))]
        body += _line(order, label, row, xs, targets, scale, shown)
    keys = [Key(label, SERIES[i % len(SERIES)], i) for i, label in enumerate(series)]
    alt = f"{title}, one line a method, and the dense model"
    return Plot(title, keys, alt, area.right + 8, area.bottom + BELOW, body)


def _line(
    order: int,
    name: str,
    row: Sequence[Point | None],
    xs: Sequence[float],
    targets: Sequence[str],
    scale: Scale,
    shown: Callable[[float], str],
) -> list[str]:
    colour = SERIES[order % len(SERIES)]
    points = [
        (x, point, target)
        for x, point, target in zip(xs, row, targets, strict=True)
        if point is not None and (point.value > 0 or not scale.logarithmic)
    ]
    parts = [
        line(x0, scale(p0.value), x1, scale(p1.value), colour, width=1.6)
        for (x0, p0, t0), (x1, p1, t1) in zip(points, points[1:], strict=False)
        if ":" not in t0 + t1
    ]
    parts += [
        line(x, scale(point.low), x, scale(point.high), colour, width=1.2)
        for x, point, _ in points
        if point.low is not None and point.high is not None
    ]
    return parts + [
        mark(order, x, scale(point.value), colour, tip=f"{name}, {target}: {shown(point.value)}")
        for x, point, target in points
    ]
