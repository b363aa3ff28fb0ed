"""Pictures of the report's page: SVG that takes its colours from the page's style.

Each is drawn some 440 pixels wide, so that it can be read on a phone; with many blocks it becomes
wider and scrolls in its box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["Series", "bars_svg", "heatmap_svg", "lines_svg"]

LEFT, RIGHT, TOP, PANEL, BOTTOM = 46.0, 8.0, 12.0, 150.0, 34.0
PLOT, BAND, CELL = 386.0, 12.0, 20.0

Series = Sequence[tuple[float, float]]
"""Points (x, y)."""


def bars_svg(
    title: str,
    indices: Sequence[int],
    kept: Mapping[str, Sequence[float]],
    dense: Sequence[float] | None = None,
) -> str:
    """A bar for each block, over a pale one as high as the dense block.

    Args:
        title: for readers that cannot see it.
        indices: numbers of the blocks.
        kept: values by class of colour; each one narrower than the one before.
        dense: the pale bars; None: there are none.
    """
    plot, band = _plot(len(indices))
    values = [*(dense or ()), *(value for row in kept.values() for value in row)]
    low, high = min([0.0, *values]), max([0.0, *values]) or 1.0
    body = _scale(low, high, plot)
    width = min(band * 0.76, 34.0)
    rows = [("dense", dense, 1.0)] if dense is not None else []
    rows += [(name, row, 1.0 - 0.42 * i) for i, (name, row) in enumerate(kept.items())]
    for name, row, share in rows:
        for place, value in enumerate(row):
            top, floor = _y(max(value, 0.0), low, high), _y(min(value, 0.0), low, high)
            x = LEFT + band * (place + 0.5) - width * share / 2
            body.append(_rect(x, top, width * share, floor - top, name))
    first = next(iter(kept.values()))
    for place, value in enumerate(first):
        label = _number(value)
        if len(label) * 6.4 <= band - 2:
            above = max(value, dense[place] if dense is not None else value, 0.0)
            body.append(_text(LEFT + band * (place + 0.5), _y(above, low, high) - 4, label, "m"))
    body += _blocks(indices, band, TOP + PANEL)
    return _svg(title, LEFT + plot + RIGHT, TOP + PANEL + BOTTOM, body)


def heatmap_svg(
    title: str, indices: Sequence[int], rows: Mapping[str, Sequence[float | None]]
) -> str:
    """Cells for each row and block: the fuller the colour, the nearer to 1.

    Args:
        title: for readers that cannot see it.
        indices: numbers of the blocks.
        rows: fractions by name; None where there is nothing.
    """
    plot, band = _plot(len(indices))
    left = max(LEFT, max(map(len, rows)) * 6.4 + 10)
    body = []
    for i, (name, values) in enumerate(rows.items()):
        y = TOP + i * CELL
        body.append(_text(left - 8, y + 14, name, "e"))
        for place, value in enumerate(values):
            if value is None:
                continue
            x = left + place * band
            shade = f' fill-opacity="{min(max(value, 0.0), 1.0):.3f}"'
            body.append(_rect(x, y, band, CELL, "cell"))
            body.append(_rect(x, y, band, CELL, "zero", shade))
            if band >= 34:
                kind = "m on" if value > 0.62 else "m"
                body.append(_text(x + band / 2, y + 14, f"{value:.0%}", kind))
    bottom = TOP + len(rows) * CELL
    body += _blocks(indices, band, bottom, left)
    return _svg(title, left + plot + RIGHT, bottom + BOTTOM, body)


def lines_svg(
    title: str, lines: Mapping[str, Series], levels: Mapping[str, float], x_name: str = "step"
) -> str:
    """Lines over steps, and dashed levels with their names.

    Args:
        title: for readers that cannot see it.
        lines: points by class of colour.
        levels: heights by name.
        x_name: what is counted from left to right.
    """
    lines = {n: [p for p in ps if math.isfinite(p[1])] for n, ps in lines.items()}
    heights = {name: level for name, level in levels.items() if math.isfinite(level)}
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    values = [y for _, y in points] + list(heights.values())
    spread = (max(values) - min(values)) or abs(max(values)) or 1.0
    low, high = min(values) - 0.06 * spread, max(values) + 0.06 * spread
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    span = (last - first) or 1.0

    def at(point: tuple[float, float]) -> str:
        return f"{LEFT + PLOT * (point[0] - first) / span:.1f},{_y(point[1], low, high):.1f}"

    body = _scale(low, high, PLOT)
    for name, level in heights.items():
        y = _y(level, low, high)
        body.append(
            f'<line class="level" x1="{LEFT}" x2="{LEFT + PLOT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        falls = level > (low + high) / 2  # lines fall from the left: there is room at the right
        x, kind = (LEFT + PLOT - 2, "e faint halo") if falls else (LEFT + 2, "faint halo")
        body.append(_text(x, y - 4, f"{name} {_number(level)}", kind))
    for name, line in lines.items():
        body.append(f'<polyline class="line {escape(name)}" points="{" ".join(map(at, line))}"/>')
        if len(line) <= 12:
            body += [
                f'<circle class="dot {escape(name)}" cx="{x}" cy="{y}" r="2.6"/>'
                for x, y in (at(point).split(",") for point in line)
            ]
    floor = TOP + PANEL
    for tick in _ticks(first, last, 5):
        x = LEFT + PLOT * (tick - first) / span
        body.append(_text(x, floor + 15, _number(tick), "m faint"))
    body.append(_text(LEFT + PLOT / 2, floor + 30, x_name, "m"))
    return _svg(title, LEFT + PLOT + RIGHT + 8, floor + BOTTOM, body)


# --- parts ---


def _plot(count: int) -> tuple[float, float]:
    """Width of the plot and of one block in it."""
    plot = max(PLOT, count * BAND)
    return plot, plot / max(count, 1)


def _scale(low: float, high: float, plot: float) -> list[str]:
    """Grid lines with their values at the left."""
    body = []
    for tick in _ticks(low, high, 4):
        y = _y(tick, low, high)
        kind = "axis" if tick == 0 else "grid"
        body.append(
            f'<line class="{kind}" x1="{LEFT}" x2="{LEFT + plot:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        body.append(_text(LEFT - 6, y + 4, _number(tick), "e faint"))
    return body


def _blocks(indices: Sequence[int], band: float, top: float, left: float = LEFT) -> list[str]:
    """The numbers of the blocks, as many as there is room for."""
    widest = len(str(max(indices))) * 6.4 + 8
    step = next(s for s in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 128) if s * band >= widest)
    body = [
        _text(left + band * (place + 0.5), top + 15, str(indices[place]), "m faint")
        for place in range(0, len(indices), step)
    ]
    return [*body, _text(left + band * len(indices) / 2, top + 30, "block", "m")]


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of a step of 1, 2 or 5 times ten^k between two values."""
    span = (high - low) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / most))
    step = next(s * magnitude for s in (1, 2, 5, 10, 20) if span / (s * magnitude) <= most)
    return [
        i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _y(value: float, low: float, high: float) -> float:
    """From a value to its place; room for a label stays above the highest."""
    return TOP + PANEL - (value - low) / ((high - low) or 1.0) * (PANEL - 12)


def _number(value: float) -> str:
    if value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.1e}"


def _rect(x: float, y: float, width: float, height: float, kind: str, more: str = "") -> str:
    return (
        f'<rect class="{escape(kind)}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{max(height, 0):.1f}"{more}/>'
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(title: str, width: float, height: float, body: list[str]) -> str:
    return (
        f'<div class="scroll"><svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}" style="min-width:{width * 0.65:.0f}px;'
        f'max-width:{width * 1.35:.0f}px">{"".join(body)}</svg></div>'
    )
