"""A search over distributions as one self-contained SVG: its trials, and the shares it found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from lightning_prune.report.grid_picture import COLOURS, _line
from lightning_prune.report.picture import FAINT, INK, REMOVED, _fit, _rect, _safe, _text

__all__ = ["spread_svg"]

LEFT, WIDTH, RIGHT = 76.0, 620.0, 24.0
FIRST, SECOND, HEIGHT = 92.0, 320.0, 150.0


def spread_svg(
    title: str,
    facts: str,
    trials: Sequence[float],
    given: Sequence[float],
    best: Sequence[float],
) -> str:
    """Draw the perplexity of every trial above, and what each block loses below.

    Args:
        title: what was searched.
        facts: how it was measured; the subtitle.
        trials: held-out perplexity, in order; infinite where there is none.
        given: the fraction removed from each block by the method as it was given.
        best: by the best trial.
    """
    width, height = LEFT + WIDTH + RIGHT, SECOND + HEIGHT + 48
    body = [*_trials(trials), *_shares(given, best)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" aria-labelledby="search-title" '
            'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" font-size="11">',
            f'<title id="search-title">{_safe(title)}</title>',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#FFFFFF"/>',
            _text(16, 26, _fit(title, width - 32, 15), size=15, weight="bold"),
            _text(16, 44, _fit(facts, width - 32, 12), size=12, fill=FAINT),
            *body,
            "</svg>\n",
        ]
    )


def _trials(values: Sequence[float]) -> list[str]:
    """A dot a trial, and a line along the best so far."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    span = (high - low) or 1.0
    floor = FIRST + HEIGHT

    def y(value: float) -> float:
        return floor - 8 - (HEIGHT - 16) * (value - low) / span

    def x(place: int) -> float:
        return LEFT + WIDTH * (place + 0.5) / max(len(values), 1)

    out = [_text(LEFT, FIRST - 12, "Perplexity on held-out text by trial", weight="bold")]
    out.append(_line(LEFT, floor, LEFT + WIDTH, floor, FAINT))
    for value in dict.fromkeys((low, high)):
        out.append(_text(LEFT - 8, y(value) + 4, f"{value:.2f}", fill=FAINT, anchor="end"))
    so_far = list(accumulate(values, min))
    for place, (before, after) in enumerate(zip(so_far, so_far[1:], strict=False)):
        if math.isfinite(before) and math.isfinite(after):
            style = 'stroke-width="1.6"'
            across, at = x(place + 1), y(before)
            out.append(_line(x(place), at, across, at, COLOURS[1], style))
            out.append(_line(across, at, across, y(after), COLOURS[1], style))
    for place, value in enumerate(values):
        if math.isfinite(value):
            out.append(
                f'<circle class="mark" cx="{x(place):.1f}" cy="{y(value):.1f}" r="3" '
                f'fill="{COLOURS[0]}"/>'
            )
    first = _text(x(0), floor + 16, "uniform, as given, then trials", fill=FAINT)
    last = _text(LEFT + WIDTH, floor + 16, str(max(len(values) - 2, 0)), fill=FAINT, anchor="end")
    return [*out, first, last]


def _shares(given: Sequence[float], best: Sequence[float]) -> list[str]:
    """A bar a block: grey what the method as given removes, blue what the best trial does."""
    floor, full = SECOND + HEIGHT, max(*given, *best, 1e-9)
    band = WIDTH / len(best)
    out = [
        _text(LEFT, SECOND - 12, "Removed from each block", weight="bold"),
        _rect(LEFT + 190, SECOND - 21, 11, 11, REMOVED, "legend"),
        _text(LEFT + 206, SECOND - 12, "as given"),
        _rect(LEFT + 270, SECOND - 21, 11, 11, COLOURS[0], "legend"),
        _text(LEFT + 286, SECOND - 12, "best"),
        _text(LEFT - 8, SECOND + 12, f"{full:.0%}", fill=FAINT, anchor="end"),
        _text(LEFT - 8, floor, "0%", fill=FAINT, anchor="end"),
    ]
    every = math.ceil(len(best) * 24 / WIDTH)
    for block, (before, now) in enumerate(zip(given, best, strict=True)):
        left = LEFT + band * block
        for share, colour, offset in ((before, REMOVED, 0.12), (now, COLOURS[0], 0.5)):
            tall = (HEIGHT - 8) * share / full
            out.append(_rect(left + offset * band, floor - tall, 0.36 * band, tall, colour, "bar"))
        if block % every == 0:
            out.append(_text(left + band / 2, floor + 15, str(block), fill=FAINT, anchor="middle"))
    out.append(_line(LEFT, floor, LEFT + WIDTH, floor, FAINT))
    out.append(_text(LEFT + WIDTH / 2, floor + 32, "block", 11, INK, "middle"))
    return out
