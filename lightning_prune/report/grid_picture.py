"""Perplexity of several methods over several sparsities, as one self-contained SVG.

The height is the logarithm of perplexity. Methods differ by the colours of Okabe and Ito and by
the shape of their marks, so that they are told apart without colour too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lightning_prune.report.picture import CHARACTER, FAINT, GRID, INK, _fit, _safe, _text

__all__ = ["grid_svg"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LEFT, RIGHT, PLOT_TOP, HEIGHT = 76.0, 24.0, 62.0, 300.0
COLUMN, LEGEND_ROW, SIZE = 110.0, 20.0, 5.0
SHAPES = 5
STEPS = (
    (1.0,),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    tuple(step / 2 for step in range(2, 20)),
    tuple(step / 10 for step in range(10, 100)),
)


def grid_svg(
    model: str,
    facts: str,
    dense: float,
    targets: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    title: str = "perplexity by method and sparsity",
    axis: str = "zeros asked for (N:M: N kept of M)",
) -> str:
    """Draw one line a method over the targets, and the dense model as a dashed line.

    Patterns ("2:4") are not on one scale with sparsities, so lines do not run across their border.

    Args:
        model: what was pruned; the title.
        facts: how it was measured; the subtitle.
        dense: perplexity of the dense model.
        targets: what was asked for, from left to right.
        series: by method, its perplexity at every target; None where there is none.
        title: what is shown, after the model's name.
        axis: what the targets are.
    """
    values = [v for line in series.values() for v in line if v is not None]
    scale = _Scale([v for v in (*values, dense) if v > 0 and math.isfinite(v)])
    right = LEFT + max(500.0, COLUMN * len(targets))
    xs = [LEFT + (right - LEFT) * (i + 0.5) / len(targets) for i in range(len(targets))]
    body = _frame(scale, right, targets, xs, axis)
    if math.isfinite(dense):
        y = scale.y(dense)
        body.append(_line(LEFT, y, right, y, INK, 'stroke-dasharray="6 4"'))
        body.append(_text(LEFT + 6, y + 14, f"dense {dense:.2f}", 10, FAINT))
    apart = min(14.0, 0.6 * (right - LEFT) / len(targets) / max(len(series), 1))
    for order, line in enumerate(series.values()):
        aside = apart * (order - (len(series) - 1) / 2)  # or marks would hide each other
        body += _series(order, line, [x + aside for x in xs], targets, scale)
    legend, rows = _legend(list(series), right)
    body += legend
    width, height = right + RIGHT, PLOT_TOP + HEIGHT + 48 + rows * LEGEND_ROW + 8
    title = f"{model}: {title}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" aria-labelledby="grid-title" '
            'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" font-size="11">',
            f'<title id="grid-title">{_safe(title)}</title>',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#FFFFFF"/>',
            _text(16, 26, _fit(title, width - 32, 15), size=15, weight="bold"),
            _text(16, 44, _fit(facts, width - 32, 12), size=12, fill=FAINT),
            *body,
            "</svg>\n",
        ]
    )


class _Scale:
    """From perplexity to height: logarithmic, from a round number to a round number."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values, default=1.0), max(values, default=10.0)
        first = math.floor(math.log10(low))
        for steps in STEPS:  # the coarsest that give enough lines
            marks = [s * 10.0**e for e in range(first - 1, min(first + 40, 300)) for s in steps]
            below = max((m for m in marks if m <= low * 0.98), default=low * 0.9)
            above = next((m for m in marks if m >= high * 1.02), high * 1.1)
            self.ticks = [m for m in marks if below <= m <= above]
            if len(self.ticks) >= 5:
                break
        self._low, self._span = math.log(below), math.log(above) - math.log(below)

    def y(self, value: float) -> float:
        return PLOT_TOP + HEIGHT * (1 - (math.log(value) - self._low) / self._span)


def _frame(
    scale: _Scale, right: float, targets: Sequence[str], xs: Sequence[float], axis: str
) -> list[str]:
    out = []
    for tick in scale.ticks:
        out.append(_line(LEFT, scale.y(tick), right, scale.y(tick), GRID, 'stroke-width="0.6"'))
        label = f"{tick:,.10g}" if tick < 1e6 else f"{tick:.0e}"
        out.append(_text(LEFT - 8, scale.y(tick) + 4, label, fill=FAINT, anchor="end"))
    floor = PLOT_TOP + HEIGHT
    out.append(_line(LEFT, floor, right, floor, FAINT))
    out += [_text(x, floor + 18, t, anchor="middle") for x, t in zip(xs, targets, strict=True)]
    out.append(
        _text(
            (LEFT + right) / 2,
            floor + 36,
            axis,
            10,
            FAINT,
            "middle",
        )
    )
    out.append(
        _text(22, PLOT_TOP + HEIGHT / 2, "perplexity (log scale)", anchor="middle", turn=True)
    )
    return out


def _series(
    order: int,
    line: Sequence[float | None],
    xs: Sequence[float],
    targets: Sequence[str],
    scale: _Scale,
) -> list[str]:
    colour, out = COLOURS[order % len(COLOURS)], []
    points = [
        (x, scale.y(v), target)
        for x, v, target in zip(xs, line, targets, strict=True)
        if v is not None and v > 0
    ]
    for (x0, y0, t0), (x1, y1, t1) in zip(points, points[1:], strict=False):
        if ":" not in t0 + t1:
            out.append(_line(x0, y0, x1, y1, colour, 'stroke-width="1.6"'))
    return out + [_mark(order, x, y) for x, y, _ in points]


def _legend(names: Sequence[str], right: float) -> tuple[list[str], int]:
    """The marks with their names below the plot, as many in a row as fit; and how many rows."""
    out, x, row = [], LEFT, 0
    for order, name in enumerate(names):
        name = _fit(name, right - LEFT - 20, 11)
        width = 30 + len(name) * CHARACTER
        if x > LEFT and x + width > right:
            x, row = LEFT, row + 1
        y = PLOT_TOP + HEIGHT + 60 + row * LEGEND_ROW
        out += [_mark(order, x + 6, y - 4), _text(x + 17, y, name)]
        x += width
    return out, row + 1


def _mark(order: int, x: float, y: float) -> str:
    """A mark whose shape and colour belong to the method at a place of the list."""
    colour = COLOURS[order % len(COLOURS)]
    style = f'fill="{colour}" stroke="#FFFFFF" stroke-width="0.8"'
    if order % SHAPES == 0:
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{SIZE:.1f}" {style}/>'
    corners = {
        1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        2: ((0, -1.2), (1.2, 1), (-1.2, 1)),
        3: ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
        4: ((0, 1.2), (1.2, -1), (-1.2, -1)),
    }[order % SHAPES]
    points = " ".join(f"{x + SIZE * dx:.1f},{y + SIZE * dy:.1f}" for dx, dy in corners)
    return f'<polygon class="mark" points="{points}" {style}/>'


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, more: str = "") -> str:
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" {more}/>'
    )
