"""Pictures as SVG, made of few parts, in colours that everybody can tell apart.

Every part has the class of its colour and, for a file that is opened by itself, that colour on
white paper. A page sets others by class, so that one picture serves light and dark.

The colours are from the palette of Okabe and Ito (https://jfly.uni-koeln.de/color/), which
colour-blind readers can tell apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape

__all__ = [
    "PALETTE",
    "SERIES",
    "circle",
    "clean",
    "fitted",
    "line",
    "mark",
    "polyline",
    "rect",
    "text",
    "width_of",
    "wrapped",
]

PALETTE = {
    "ink": ("#1D2126", "#E7E9EC"),
    "faint": ("#5E6670", "#A0A8B2"),
    "rule": ("#DFE2E6", "#333A42"),
    "paper": ("#FFFFFF", "#1B1F24"),
    "pale": ("#E3E6EA", "#323A43"),
    "grey": ("#A6A6A6", "#77808A"),
    "deep": ("#0B4F8A", "#5FB2F2"),
    "blue": ("#0072B2", "#4AA8E0"),
    "vermillion": ("#D55E00", "#F08A4A"),
    "green": ("#009E73", "#38C29A"),
    "purple": ("#CC79A7", "#E0A0C4"),
    "orange": ("#E69F00", "#F0B73E"),
    "sky": ("#56B4E9", "#8FD0F5"),
}
"""By name: on white, and on black."""
SERIES = ("blue", "vermillion", "green", "purple", "orange", "sky", "ink")
"""One after the other, for what is drawn together."""

SIZE = 11.0
"""Height of text, in pixels."""
NARROW, WIDE = frozenset("iljtfrI.,:;|!'()[]/ "), frozenset("mwMW@%\u2026")
SHAPES = (
    (),  # a circle
    ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    ((0, -1.2), (1.2, 1), (-1.2, 1)),
    ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    ((0, 1.2), (1.2, -1), (-1.2, -1)),
)
"""Corners of the marks, around their middle."""


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: float = SIZE,
    colour: str = "ink",
    anchor: str = "start",
    bold: bool = False,
    turned: bool = False,
    halo: bool = False,
) -> str:
    """One line of words; `turned` runs upwards, `halo` keeps it legible on top of lines."""
    classes = f"{_fill(colour)} halo" if halo else _fill(colour)
    style = f'class="{classes}" x="{x:.1f}" y="{y:.1f}" fill="{PALETTE[colour][0]}"'
    style += f' font-size="{size:g}"' if size != SIZE else ""
    style += f' text-anchor="{anchor}"' if anchor != "start" else ""
    style += ' font-weight="bold"' if bold else ""
    style += f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    if halo:
        style += f' stroke="{PALETTE["paper"][0]}" stroke-width="3" paint-order="stroke"'
    return f"<text {style}>{escape(clean(words))}</text>"


def rect(
    x: float,
    y: float,
    width: float,
    height: float,
    colour: str,
    *,
    kind: str = "",
    opacity: float = 1.0,
    tip: str = "",
) -> str:
    """A rectangle; `tip` is said where a mouse points at it."""
    style = f'class="{f"{_fill(colour)} {kind}".strip()}" x="{x:.1f}" y="{y:.1f}" '
    style += f'width="{width:.1f}" height="{max(height, 0.0):.1f}" fill="{PALETTE[colour][0]}"'
    style += f' fill-opacity="{min(max(opacity, 0.0), 1.0):.3f}"' if opacity != 1 else ""
    return f"<rect {style}>{_tip(tip)}</rect>" if tip else f"<rect {style}/>"


def line(
    x0: float,
    y0: float,
    x1: float,
    y1: float,
    colour: str = "rule",
    *,
    width: float = 0.7,
    dashed: bool = False,
    kind: str = "",
) -> str:
    """A straight line."""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<line class="{f"s-{colour} {kind}".strip()}" x1="{x0:.1f}" y1="{y0:.1f}" '
        f'x2="{x1:.1f}" y2="{y1:.1f}" stroke="{PALETTE[colour][0]}" '
        f'stroke-width="{width:g}"{dashes}/>'
    )


def polyline(
    points: Sequence[tuple[float, float]], colour: str, *, width: float = 1.8, opacity: float = 1.0
) -> str:
    """A line through points."""
    pale = f' stroke-opacity="{opacity:g}"' if opacity != 1 else ""
    return (
        f'<polyline class="s-{colour}" points="{_points(points)}" fill="none" '
        f'stroke="{PALETTE[colour][0]}" stroke-width="{width:g}" stroke-linejoin="round"{pale}/>'
    )


def mark(shape: int, x: float, y: float, colour: str, *, size: float = 5.0, tip: str = "") -> str:
    """A mark around a point: shapes differ, too, for those who see no colours."""
    style = f'class="{_fill(colour)} mark" fill="{PALETTE[colour][0]}"'
    corners = SHAPES[shape % len(SHAPES)]
    if not corners:
        return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="{size:g}">{_tip(tip)}</circle>'
    around = [(x + size * across, y + size * down) for across, down in corners]
    return f'<polygon {style} points="{_points(around)}">{_tip(tip)}</polygon>'


def circle(x: float, y: float, radius: float, colour: str, *, opacity: float, tip: str) -> str:
    """A circle with its rim, which others show through; `tip` is said where a mouse points."""
    shade = PALETTE[colour][0]
    return (
        f'<circle class="{_fill(colour)} s-{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" '
        f'fill="{shade}" fill-opacity="{opacity:g}" stroke="{shade}" stroke-width="1.8">'
        f"{_tip(tip)}</circle>"
    )


def width_of(words: str, size: float = SIZE) -> float:
    """About how many pixels wide words are, in a font as wide as DejaVu Sans."""
    ems = sum(
        0.36 if c in NARROW else 0.95 if c in WIDE else 1.0 if ord(c) > 0x2E7F else 0.63
        for c in words
    )
    return ems * size


def fitted(words: str, room: float, size: float = SIZE) -> str:
    """Words that fit `room` pixels, shortened in the middle: the ends tell names apart."""
    if width_of(words, size) <= room:
        return words
    most = len(words)
    while (
        most > 2
        and width_of(f"{words[: most // 2]}\u2026{words[-(most - most // 2) :]}", size) > room
    ):
        most -= 1
    return f"{words[: most // 2]}\u2026{words[-(most - most // 2) :]}"


def wrapped(words: str, room: float, size: float = SIZE) -> list[str]:
    """Words in as many lines of `room` pixels as they need; a longer word is shortened."""
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(fitted(word, room, size))
    return lines


def clean(words: str) -> str:
    """Without the characters that XML does not allow."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", words)


def _fill(colour: str) -> str:
    return f"f-{colour}"


def _tip(words: str) -> str:
    return f"<title>{escape(clean(words))}</title>" if words else ""


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
