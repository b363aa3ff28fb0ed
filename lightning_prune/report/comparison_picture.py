"""Blocks of two models side by side as one self-contained SVG: heads, key/value heads, neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_prune.report.picture import (
    CHARACTER,
    FAINT,
    GAP,
    HEADING,
    HEADS,
    KV_HEADS,
    NEURONS,
    PANEL,
    RIGHT,
    TOP,
    _Axis,
    _block_axis,
    _fit,
    _floor,
    _height,
    _legend,
    _of,
    _rect,
    _safe,
    _scale,
    _text,
)

if TYPE_CHECKING:
    from lightning_prune.analysis.structure import BlockCounts

__all__ = ["comparison_svg"]

BEFORE = "#A6A6A6"
PANELS = (
    ("query heads", "heads", HEADS),
    ("key/value heads", "kv_heads", KV_HEADS),
    ("MLP neurons", "width", NEURONS),
)
Pair = tuple[int, "BlockCounts | None", "BlockCounts | None"]


def comparison_svg(a: str, b: str, pairs: Sequence[Pair]) -> str:
    """Draw the blocks of two models, A grey and B in colour; a block that one lacks has no bar.

    Args:
        a: what the first model is called.
        b: what the second one is called.
        pairs: block by block its number, and its counts in A and in B.
    """
    plot = min(760.0, max(480.0, len(pairs) * 56.0))
    axis = _Axis(76.0, plot / max(len(pairs), 1), [index for index, _, _ in pairs])
    top, body, said = float(TOP), [], []
    for name, attribute, colour in PANELS:
        values = [[getattr(c, attribute) if c else 0 for c in pair[1:]] for pair in pairs]
        totals = _of([v[1] for v in values], [v[0] for v in values])
        said.append(f"{name} {totals}")
        full = max((max(v) for v in values), default=0)
        body += _legend(axis, top, [(f"{name} of A", BEFORE), (f"of B: {totals}", colour)])
        body += _scale(axis, top, name.rpartition(" ")[2], full)
        for position, pair in enumerate(values):
            body += _two_bars(axis, top, position, pair, full, colour)
        top += HEADING + PANEL + GAP
    body += _block_axis(axis, top - GAP) if pairs else []
    width, height = axis.right + RIGHT, top - GAP + 46
    desc = f"Two bars for each of {len(pairs)} blocks. B of A in all: {', '.join(said)}."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" '
            'aria-labelledby="compare-title compare-desc" '
            'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" font-size="11">',
            f'<title id="compare-title">{_safe(f"{a} and {b}: widths of the blocks")}</title>',
            f'<desc id="compare-desc">{_safe(desc)}</desc>',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#FFFFFF"/>',
            _text(16, 26, _fit(f"A  {a}", width - 32, 13), size=13, weight="bold"),
            _text(16, 46, _fit(f"B  {b}", width - 32, 13), size=13, weight="bold"),
            *body,
            "</svg>\n",
        ]
    )


def _two_bars(
    axis: _Axis, top: float, position: int, pair: Sequence[int], full: int, colour: str
) -> list[str]:
    out, width = [], axis.bar / 2
    for side, (value, fill) in enumerate(zip(pair, (BEFORE, colour), strict=True)):
        x, y = axis.centre(position) + (side - 1) * width, _height(top, value, full)
        out.append(_rect(x, y, width, _floor(top) - y, fill, "ab"[side]))
        label = f"{value:,}"
        if len(label) * CHARACTER <= axis.band / 2 - 1:
            out.append(_text(x + width / 2, y - 4, label, 10, FAINT, "middle"))
    return out
