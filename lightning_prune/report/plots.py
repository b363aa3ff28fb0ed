"""Plots: a picture with its title and the meaning of its colours, in a page or in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from lightning_prune.report.svg import clean, fitted, mark, rect, text, width_of, wrapped

__all__ = ["Key", "Plot", "document", "figures", "keys"]

FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
MARGIN, KEY_ROW, GAP = 16.0, 20.0, 26.0
WIDE = 600.0
"""Pixels; a wider picture has a row of a page to itself."""


@dataclass(frozen=True)
class Key:
    """What a colour stands for, or a mark.

    Attributes:
        words: what it stands for.
        colour: its name.
        shape: number of the mark; None: a square.
        fades: the colour from nothing to full.
    """

    words: str
    colour: str
    shape: int | None = None
    fades: bool = False


@dataclass(frozen=True)
class Plot:
    """One picture without its title and the meaning of its colours.

    Attributes:
        title: what it shows.
        keys: of its colours.
        alt: the same in words, for readers that cannot see it.
        width, height: in pixels.
        body: its parts.
    """

    title: str
    keys: Sequence[Key]
    alt: str
    width: float
    height: float
    body: Sequence[str]

    def inline(self) -> str:
        """For a page: in a box that scrolls where the page is too narrow for it to be read."""
        return (
            f'<div class="scroll"><svg viewBox="0 0 {self.width:.0f} {self.height:.0f}" role="img" '
            f"aria-label={quoteattr(clean(self.alt))} "
            f'style="min-width:{self.width * 0.8:.0f}px;max-width:{self.width * 1.35:.0f}px">'
            f"{''.join(self.body)}</svg></div>"
        )


def document(name: str, heading: str, lines: Sequence[str], plots: Sequence[Plot]) -> str:
    """A file of its own: plots below each other, under a heading and lines of what they are of.

    Args:
        name: a word that no other picture on a page has.
        heading: in bold; what does not fit is left out in the middle.
        lines: below the heading; long ones are broken between words.
        plots: from above to below.
    """
    width = math.ceil(2 * MARGIN + max(plot.width for plot in plots))
    room = width - 2 * MARGIN
    body = [text(MARGIN, 26, fitted(heading, room, 15), size=15, bold=True)]
    top = 26.0
    for words in (part for whole in lines for part in wrapped(whole, room, 12)):
        top += 17
        body.append(text(MARGIN, top, words, size=12, colour="faint"))
    for plot in plots:
        top += GAP
        body.append(text(MARGIN, top, plot.title, size=12, bold=True))
        shown, bottom = keys(plot.keys, MARGIN, top + 18, room)
        top = (bottom if plot.keys else top) + 6
        body += [*shown, f'<g transform="translate({MARGIN:.0f} {top:.1f})">', *plot.body, "</g>"]
        top += plot.height
    title = ": ".join([heading, *lines[:1]])
    alt = " ".join(plot.alt if plot.alt.endswith(".") else f"{plot.alt}." for plot in plots)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {top + 14:.0f}" '
            f'width="{width:.0f}" height="{top + 14:.0f}" role="img" '
            f'aria-labelledby="{name}-title {name}-desc" font-family="{FONT}" font-size="11">',
            f'<title id="{name}-title">{escape(clean(title))}</title>',
            f'<desc id="{name}-desc">{escape(clean(alt))}</desc>',
            rect(0, 0, width, top + 14, "paper"),
            *body,
            "</svg>\n",
        ]
    )


def figures(plots: Sequence[Plot]) -> str:
    """For a page: pictures side by side, each with its title and the meaning of its colours."""
    parts = []
    for plot in plots:
        keys = "".join(
            f'<span class="key"><i class="f-{key.colour}{" fades" * key.fades}"></i>'
            f"{escape(key.words)}</span>"
            for key in plot.keys
        )
        caption = f'<figcaption><span class="title">{escape(plot.title)}</span>{keys}</figcaption>'
        kind = ' class="wide"' if plot.width > WIDE else ""
        parts.append(f"<figure{kind}>{caption}{plot.inline()}</figure>")
    return f'<div class="figures">{"".join(parts)}</div>' if parts else ""


def keys(
    entries: Sequence[Key], left: float, baseline: float, room: float
) -> tuple[list[str], float]:
    """What colours and marks stand for, as many in a row as fit; and where the last row stands."""
    parts, x = [], left
    for entry in entries:
        words = fitted(entry.words, room - 60)
        swatch = 60.0 if entry.fades else 12.0
        if x > left and x + swatch + 5 + width_of(words) > left + room:
            x, baseline = left, baseline + KEY_ROW
        if entry.shape is not None:
            parts.append(mark(entry.shape, x + 6, baseline - 4, entry.colour))
        elif entry.fades:
            parts += [
                rect(x + 3 * step, baseline - 10, 3, 11, entry.colour, opacity=step / 19)
                for step in range(20)
            ]
        else:
            parts.append(rect(x, baseline - 10, 11, 11, entry.colour, kind="key"))
        parts.append(text(x + swatch + 5, baseline, words))
        x += swatch + 5 + width_of(words) + 16
    return parts, baseline
