"""Perplexity of several methods over several budgets, as one picture.

The height is the logarithm of perplexity. Methods differ by colour and by the shape of their marks,
so that they are told apart without colour too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lightning_prune.report.axes import Area, Scale, log_ticks, value_axis
from lightning_prune.report.numbers import perplexity_text
from lightning_prune.report.plots import Key, Plot, document
from lightning_prune.report.svg import SERIES, line, mark, text, width_of

__all__ = ["grid_svg"]

HEIGHT, COLUMN, BELOW = 300.0, 110.0, 46.0


def grid_svg(
    model: str,
    facts: str,
    dense: float,
    targets: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    title: str,
    axis: str,
) -> str:
    """Draw one line a method over the targets, and the dense model as a dashed line.

    Patterns ("2:4") are not on one scale with sparsities, so lines do not run across their border.

    Args:
        model: what was pruned.
        facts: how it was measured.
        dense: perplexity of the dense model.
        targets: what was asked for, from left to right.
        series: by method, its perplexity at every target; None where there is none.
        title: what is shown.
        axis: what the targets are.
    """
    values = [v for line in series.values() for v in line if v is not None]
    numbers = log_ticks([v for v in (*values, dense) if v > 0 and math.isfinite(v)])
    left = max(60.0, max(width_of(_tick(n)) for n in numbers) + 34)
    area = Area(left, 8, max(500.0, COLUMN * len(targets)), HEIGHT)
    scale = Scale(numbers[0], numbers[-1], area.bottom, area.top, logarithmic=True)
    body = value_axis(area, scale, numbers, "perplexity (log scale)", _tick)
    body.append(line(area.left, area.bottom, area.right, area.bottom, "faint"))
    column = area.width / max(len(targets), 1)
    for i, target in enumerate(targets):
        x = area.left + column * (i + 0.5)
        body.append(text(x, area.bottom + 18, target, anchor="middle"))
    middle = area.left + area.width / 2
    body.append(text(middle, area.bottom + 36, axis, size=10, colour="faint", anchor="middle"))
    if math.isfinite(dense):
        y, words = scale(dense), f"dense {perplexity_text(dense)}"
        body.append(line(area.left, y, area.right, y, "ink", width=1, dashed=True))
        body.append(text(area.left + 6, y + 14, words, size=10, colour="faint", halo=True))
    apart = min(14.0, 0.6 * column / max(len(series), 1))
    for order, (name, points) in enumerate(series.items()):
        aside = apart * (order - (len(series) - 1) / 2)  # or marks would hide each other
        xs = [area.left + column * (i + 0.5) + aside for i in range(len(targets))]
        body += _series(order, name, points, xs, targets, scale)
    keys = [Key(name, SERIES[i % len(SERIES)], i) for i, name in enumerate(series)]
    alt = f"{title}, one line a method, and the dense model"
    plot = Plot(title, keys, alt, area.right + 8, area.bottom + BELOW, body)
    return document("grid", model, [facts], [plot])


def _tick(value: float) -> str:
    return f"{value:,.10g}" if value < 1e6 else f"{value:.0e}"


def _series(
    order: int,
    name: str,
    values: Sequence[float | None],
    xs: Sequence[float],
    targets: Sequence[str],
    scale: Scale,
) -> list[str]:
    colour = SERIES[order % len(SERIES)]
    points = [
        (x, value, target)
        for x, value, target in zip(xs, values, targets, strict=True)
        if value is not None and value > 0
    ]
    parts = [
        line(x0, scale(v0), x1, scale(v1), colour, width=1.6)
        for (x0, v0, t0), (x1, v1, t1) in zip(points, points[1:], strict=False)
        if ":" not in t0 + t1
    ]
    return parts + [
        mark(order, x, scale(v), colour, tip=f"{name}, {target}: {perplexity_text(v)}")
        for x, v, target in points
    ]
