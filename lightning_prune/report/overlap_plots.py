"""Pictures of what circuits share: a map of all pairs, and circles that overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase

from lightning_prune.report.plots import Key, Plot
from lightning_prune.report.svg import SERIES, circle, fitted, rect, text, width_of

__all__ = ["letters", "pair_map", "venn"]

WIDTH = 440.0
"""Pixels of a picture at least."""
CELL_WIDTH, CELL_HEIGHT = 52.0, 26.0
NAME_ROOM = 260.0
FULL = {"deep": 0.55, "vermillion": 0.72}
"""From so full a colour on, words on it are as bright as paper."""
RADIUS, APART = 92.0, 54.0
"""Pixels of a circle, and from its middle to that of the picture."""
ALONE, SHARED_BY_TWO, OUTSIDE = 96.0, 72.0, RADIUS + APART + 14
"""Pixels from the middle of the picture to a count, and to a circle's letter."""
COUNT_SIZE, COUNT_ROOM = 14.0, 58.0
DIRECTIONS = {2: (180.0, 0.0), 3: (150.0, 30.0, 270.0)}
"""Of the circles, in degrees from the right to above."""


def letters(names: Sequence[str]) -> dict[str, str]:
    """A, B, C for names, in their order; AA behind Z."""
    count = len(ascii_uppercase)
    return {name: ascii_uppercase[i % count] * (i // count + 1) for i, name in enumerate(names)}


def pair_map(
    title: str,
    names: Sequence[str],
    values: Mapping[tuple[str, str], float],
    shown: Callable[[float], str],
) -> Plot:
    """Cells of every two names: the fuller the colour, the nearer to 1, or to -1 in the other.

    Args:
        title: what is shown.
        names: of rows and columns.
        values: of pairs, in either order, from -1 to 1; NaN: undefined.
        shown: a value as text.
    """
    letter = letters(names)
    labels = {name: f"{letter[name]}  {fitted(name, NAME_ROOM)}" for name in names}
    left, top = max(map(width_of, labels.values())) + 14, 20.0
    body = []
    for i, name in enumerate(names):
        x, y = left + CELL_WIDTH * i, top + CELL_HEIGHT * i
        body.append(
            text(x + CELL_WIDTH / 2, top - 6, letter[name], colour="faint", anchor="middle")
        )
        body.append(text(0, y + 17, labels[name]))
        for j, other in enumerate(names):
            place = left + CELL_WIDTH * j, y
            if i == j:
                body.append(rect(*place, CELL_WIDTH - 0.7, CELL_HEIGHT - 0.7, "pale", kind="self"))
            else:
                value = values[(name, other) if i < j else (other, name)]
                body += _cell(*place, value, shown(value), f"{name} and {other}")
    keys = [Key("0 to 1", "deep", fades=True)]
    if any(value < 0 for value in values.values()):
        keys.append(Key("0 to -1", "vermillion", fades=True))
    alt = ", ".join(f"{a} and {b} {shown(value)}" for (a, b), value in values.items())
    width, height = left + CELL_WIDTH * len(names), top + CELL_HEIGHT * len(names)
    return Plot(title, keys, f"{title}: {alt}", max(WIDTH, width), height + 4, body)


def venn(
    title: str,
    sizes: Mapping[str, int],
    regions: Mapping[tuple[str, ...], int],
) -> Plot:
    """Two or three circles of one size with the count of each region in it.

    Args:
        title: what is shown.
        sizes: how many members each has, by its name.
        regions: how many members are in just these, by their names.
    """
    names, letter = list(sizes), letters(list(sizes))
    directions = [
        (math.cos(math.radians(angle)), -math.sin(math.radians(angle)))
        for angle in DIRECTIONS[len(names)]
    ]
    middle_x = WIDTH / 2
    middle_y = RADIUS + 8 - APART * min(down for _, down in directions)
    height = middle_y + RADIUS + APART * max(down for _, down in directions) + 8
    where = dict(zip(names, directions, strict=True))
    body, labels = [], []
    for name, colour in zip(names, SERIES, strict=False):
        across, down = where[name]
        x, y = middle_x + APART * across, middle_y + APART * down
        tip = f"{name}: {sizes[name]:,}"
        body.append(circle(x, y, RADIUS, colour, opacity=0.16, tip=tip))
        x, y = middle_x + OUTSIDE * across, middle_y + OUTSIDE * down
        labels.append(text(x, y + 5, letter[name], size=COUNT_SIZE, anchor="middle", bold=True))
    for inside, count in regions.items():
        across, down = (sum(where[name][axis] for name in inside) for axis in (0, 1))
        far = {1: ALONE, len(names): 0.0}.get(len(inside), SHARED_BY_TWO)
        x, y = middle_x + far * across, middle_y + far * down
        words = f"{count:,}"
        size = min(COUNT_SIZE, COUNT_ROOM / width_of(words, 1.0))
        labels.append(text(x, y + size / 3, words, size=round(size, 1), anchor="middle"))
    keys = [
        Key(f"{letter[name]}  {name}: {size:,}", colour)
        for (name, size), colour in zip(sizes.items(), SERIES, strict=False)
    ]
    alt = ", ".join(
        f"{' and '.join(inside)}{' alone' * (len(inside) < len(names))} {count:,}"
        for inside, count in regions.items()
    )
    lowest = max(height, middle_y + OUTSIDE * max(down for _, down in directions) + 14)
    return Plot(title, keys, f"{title}: {alt}", WIDTH, lowest, [*body, *labels])


def _cell(x: float, y: float, value: float, words: str, pair: str) -> list[str]:
    defined = not math.isnan(value)
    strength = abs(value) if defined else 0.0
    colour = "vermillion" if defined and value < 0 else "deep"
    cell = rect(
        x,
        y,
        CELL_WIDTH - 0.7,
        CELL_HEIGHT - 0.7,
        colour,
        kind="cell",
        opacity=strength,
        tip=f"{pair}: {words}",
    )
    ink = "paper" if strength > FULL[colour] else "ink"
    middle = x + CELL_WIDTH / 2
    return [cell, text(middle, y + 17, words, colour=ink, anchor="middle")]
