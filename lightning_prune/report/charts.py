"""Charts that results are drawn with: bars and cells by block, and lines over steps.

Each is some 440 pixels wide, so that it can be read on a phone; with many blocks it becomes wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lightning_prune.report.axes import (
    Area,
    Scale,
    block_axis,
    count_ticks,
    number_axis,
    ticks,
    told_apart,
    value_axis,
)
from lightning_prune.report.numbers import short_text
from lightning_prune.report.plots import Key, Plot
from lightning_prune.report.svg import line, mark, polyline, rect, text, width_of

__all__ = ["ROOM", "ROOM_ALONE", "Bars", "Curve", "block_bars", "curves", "heat_map"]

ROOM, ROOM_ALONE = 386.0, 620.0
"""Pixels for all blocks at least, beside other pictures and in a file by itself."""
BAND = 12.0
"""Pixels for a block at least."""
LEFT, TOP, PANEL, BOTTOM, RIGHT = 54.0, 14.0, 140.0, 36.0, 8.0
CELL, MEAN = 20.0, 46.0
CELL_BAND = 8.0
"""Pixels for a cell at least; no bar stands in it."""
CELL_TEXT = 30.0
"""Pixels that a percentage in a cell takes."""
APART = 7.0
"""Pixels between two numbers in a row, so that they are not read as one."""
MOST_DOTS = 12


@dataclass(frozen=True)
class Bars:
    """A bar for each block.

    Attributes:
        name: what is counted, as in "6 query heads".
        values: block by block.
        colour: of the palette.
        span: from where to where it stands in the place of a block, within [0, 1].
        kind: a class of its parts.
        numbered: whether values stand above, where there is room for all of them.
    """

    name: str
    values: Sequence[float]
    colour: str
    span: tuple[float, float] = (0.0, 1.0)
    kind: str = ""
    numbered: bool = False


@dataclass(frozen=True)
class Curve:
    """Values over steps.

    Attributes:
        name: what they are.
        points: (step, value); those that are not finite are left out.
        colour: of the palette.
        drawn: as a line; else as dots alone.
        dotted: a dot at each point; None: of lines with few points.
        opacity: of the line.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    drawn: bool = True
    dotted: bool | None = None
    opacity: float = 1.0


def block_bars(
    title: str,
    alt: str,
    indices: Sequence[int],
    rows: Sequence[Bars],
    keys: Sequence[Key] = (),
    *,
    counts: bool = False,
    shown: Callable[[float], str] = short_text,
    room: float = ROOM,
) -> Plot:
    """Bars over blocks, from zero up, or down where a value is below zero.

    Args:
        title: what is shown.
        alt: the same in words.
        indices: numbers of the blocks.
        rows: drawn one over the other, or beside each other, as their spans say.
        keys: of the colours.
        counts: values are whole numbers.
        shown: a value as text.
        room: pixels for all blocks, or more if they are many.
    """
    values = [value for row in rows for value in row.values]
    low, high = min([0.0, *values]), max([0.0, *values]) or 1.0
    numbers = count_ticks(int(high)) if counts else ticks(low, high)
    left = max(LEFT, max(width_of(shown(number)) for number in numbers) + 12)
    area = Area(left, TOP, max(room, BAND * len(indices)), PANEL)
    scale = Scale(low, high, area.bottom, area.top)
    body = value_axis(area, scale, numbers, shown=shown)
    band = area.width / max(len(indices), 1)
    width = _width(band, rows)
    for row in rows:
        start, end = row.span
        for place, (index, value) in enumerate(zip(indices, row.values, strict=True)):
            x = area.left + band * (place + 0.5) + width * (start - 0.5)
            upper, lower = scale(max(value, 0.0)), scale(min(value, 0.0))
            tip = f"block {index}: {shown(value)} {row.name}"
            body.append(
                rect(x, upper, width * (end - start), lower - upper, row.colour,
                     kind=row.kind, tip=tip)
            )  # fmt: skip
    body += [
        label for row in rows if row.numbered for label in _labels(area, scale, rows, row, shown)
    ]
    body += block_axis(area, indices)
    return Plot(title, keys, alt, area.right + RIGHT, area.bottom + BOTTOM, body)


def heat_map(
    title: str,
    alt: str,
    indices: Sequence[int],
    rows: Mapping[str, Sequence[float | None]],
    *,
    room: float = ROOM,
) -> Plot:
    """Cells by row and block: the fuller the colour, the nearer to 1; with the mean of each row.

    Args:
        title: what is shown.
        alt: the same in words.
        indices: numbers of the blocks.
        rows: fractions by name; None where there is nothing.
        room: pixels for all blocks, or more if they are many.
    """
    left = max(map(width_of, rows)) + 14
    room -= left + MEAN - LEFT - RIGHT  # as wide in all as the other pictures
    area = Area(left, TOP + 6, max(room, CELL_BAND * len(indices)), CELL * len(rows))
    band = area.width / max(len(indices), 1)
    body = [text(area.right + 8, area.top - 6, "mean", colour="faint")]
    for i, (name, shares) in enumerate(rows.items()):
        y = area.top + CELL * i
        body.append(text(area.left - 8, y + 14, name, anchor="end"))
        for place, (index, share) in enumerate(zip(indices, shares, strict=True)):
            if share is None:
                continue
            x, tip = area.left + band * place, f"{name} of block {index}: {share:.1%}"
            body.append(
                rect(x, y, band - 0.7, CELL - 0.7, "deep", kind="cell", opacity=share, tip=tip)
            )
            if band >= CELL_TEXT:
                ink = "paper" if share > 0.55 else "ink"
                words = f"{share:.0%}"
                body.append(text(x + band / 2, y + 14, words, size=10, colour=ink, anchor="middle"))
        known = [share for share in shares if share is not None]
        body.append(text(area.right + 8, y + 14, f"{sum(known) / max(len(known), 1):.1%}"))
    body += block_axis(area, indices)
    key = Key("0% to 100%", "deep", fades=True)
    return Plot(title, [key], alt, area.right + MEAN, area.bottom + BOTTOM, body)


def curves(
    title: str,
    alt: str,
    lines: Sequence[Curve],
    *,
    keys: Sequence[Key] = (),
    levels: Mapping[str, float] | None = None,
    x_name: str = "step",
    room: float = ROOM,
) -> Plot | None:
    """Lines over steps, and dashed levels with their names; None if no point can be drawn.

    Args:
        title: what is shown.
        alt: the same in words.
        lines: what is drawn.
        keys: of the colours.
        levels: heights by name.
        x_name: what is counted from left to right.
        room: pixels from the first step to the last.
    """
    drawn = [(curve, [p for p in curve.points if math.isfinite(p[1])]) for curve in lines]
    heights = {n: level for n, level in (levels or {}).items() if math.isfinite(level)}
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points] + list(heights.values())
    if not xs:
        return None
    spread = (max(ys) - min(ys)) or abs(max(ys)) or 1.0
    low, high = min(ys) - 0.1 * spread, max(ys) + 0.1 * spread
    numbers = ticks(low, high)
    shown = told_apart(numbers)
    left = max(LEFT, max(width_of(shown(number)) for number in numbers) + 12)
    area = Area(left, TOP, room, PANEL)
    across = Scale(min(xs), max(xs), area.left, area.right)
    if min(xs) == max(xs):  # a single step stands in the middle
        across = Scale(min(xs) - 1, max(xs) + 1, area.left, area.right)
    up = Scale(low, high, area.bottom, area.top)
    body = value_axis(area, up, numbers, shown=shown)
    for name, level in heights.items():
        body += _level(area, up(level), f"{name} {short_text(level)}", level > (low + high) / 2)
    for curve, points in drawn:
        places = [(across(x), up(y)) for x, y in points]
        if curve.drawn:
            width = 1.8 if curve.opacity == 1 else 1.0
            body.append(polyline(places, curve.colour, width=width, opacity=curve.opacity))
        few = curve.opacity == 1 and len(points) <= MOST_DOTS
        if few if curve.dotted is None else curve.dotted:
            body += [
                mark(0, *place, curve.colour, size=2.8, tip=f"{x_name} {x:g}: {short_text(y)}")
                for place, (x, y) in zip(places, points, strict=True)
            ]
    counted = [x for x in ticks(min(xs), max(xs)) if math.isclose(x, round(x))]
    body += number_axis(area, across, counted, x_name)
    return Plot(title, keys, alt, area.right + 2 * RIGHT, area.bottom + BOTTOM, body)


def _labels(
    area: Area, scale: Scale, rows: Sequence[Bars], row: Bars, shown: Callable[[float], str]
) -> list[str]:
    """The values of a row above its bars and those around them; none if one has no room."""
    band = area.width / max(len(row.values), 1)
    width = _width(band, rows)
    alone = row.span == (0.0, 1.0)
    room = band if alone else min(band / 2, width * (row.span[1] - row.span[0]) + APART)
    words = [shown(value) for value in row.values]
    if max(map(width_of, words), default=0.0) + APART > room:
        return []
    around = [other.values for other in rows if _overlap(other.span, row.span)]
    middle = (row.span[0] + row.span[1] - 1) / 2
    return [
        text(
            area.left + band * (place + 0.5) + width * middle,
            scale(max(0.0, *(values[place] for values in around))) - 4,
            words[place],
            size=10,
            anchor="middle",
        )
        for place in range(len(words))
    ]


def _width(band: float, rows: Sequence[Bars]) -> float:
    """Of all bars of a block together, in its band."""
    side_by_side = 2 if any(row.span[0] >= 0.5 for row in rows) else 1
    return min(band * 0.8, 40.0 * side_by_side)


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _level(area: Area, y: float, words: str, is_high: bool) -> list[str]:
    """A dashed line with its name, on the side that other lines stay away from."""
    baseline = y - 4 if is_high else y + 12
    return [
        line(area.left, y, area.right, y, "faint", width=1, dashed=True),
        text(area.right - 2, baseline, words, colour="faint", anchor="end", halo=True),
    ]
