"""The structure of a pruned model as one self-contained SVG: what every block kept.

Panels share the block axis: query heads with their key/value heads, MLP neurons, and, where
weights are masked, the sparsity of every site. Colours are from the palette of Okabe and Ito
(https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from lightning_prune.report.report import BlockShape, Report

__all__ = ["structure_svg"]

HEADS, KV_HEADS, NEURONS, REMOVED = "#0072B2", "#E69F00", "#009E73", "#E4E4E4"
# from 0 to 1; every channel falls steadily, so the order survives without colour
SPARSITY_STOPS = ((247, 250, 252), (158, 197, 224), (49, 130, 189), (8, 48, 107))
INK, FAINT, GRID = "#222222", "#5F5F5F", "#D0D0D0"

CHARACTER = 6.2  # mean width of a character at 11 px
TOP, PANEL, HEADING, GAP = 62, 150, 26, 24
ROW, RIGHT = 18, 62


@dataclass(frozen=True)
class _Axis:
    """Where blocks stand from left to right."""

    left: float
    band: float
    indices: Sequence[int]

    @property
    def right(self) -> float:
        return self.left + self.band * len(self.indices)

    @property
    def bar(self) -> float:
        """Width of a bar."""
        return min(self.band * 0.8, 40.0)

    def centre(self, position: int) -> float:
        return self.left + self.band * (position + 0.5)


def structure_svg(report: Report) -> str:
    """Draw the blocks of `report`: kept against dense, block by block.

    Raises:
        ValueError: the report has no blocks.
    """
    blocks = report.blocks
    if not blocks:
        raise ValueError("the report has no blocks to draw")
    sites = list(dict.fromkeys(site for block in blocks for site in block.sparsity))
    masked = any(share > 0 for block in blocks for share in block.sparsity.values())
    left = max(76.0, max(map(len, sites)) * CHARACTER + 16) if masked else 76.0
    plot = min(760.0, max(480.0, len(blocks) * 56.0))
    axis = _Axis(left, plot / len(blocks), [block.index for block in blocks])

    top = TOP
    body = _heads_panel(axis, top, blocks)
    top += HEADING + PANEL + GAP
    body += _neurons_panel(axis, top, blocks)
    top += HEADING + PANEL
    if masked:
        top += GAP
        body += _sparsity_panel(axis, top, blocks, sites)
        top += HEADING + ROW * len(sites)
    body += _block_axis(axis, top)

    width, height = axis.right + RIGHT, top + 46
    title = f"{report.model}: structure after {report.method}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" '
            'aria-labelledby="structure-title structure-desc" '
            'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" font-size="11">',
            f'<title id="structure-title">{_safe(title)}</title>',
            f'<desc id="structure-desc">{_safe(_description(blocks, masked))}</desc>',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#FFFFFF"/>',
            _text(16, 26, _fit(report.model, width - 32, 15), size=15, weight="bold"),
            _text(16, 44, _fit(report.method, width - 32, 12), size=12, fill=FAINT),
            *body,
            "</svg>\n",
        ]
    )


def _heads_panel(axis: _Axis, top: float, blocks: Sequence[BlockShape]) -> list[str]:
    kept, dense = [b.heads for b in blocks], [b.dense_heads for b in blocks]
    kv_kept, kv_dense = [b.kv_heads for b in blocks], [b.dense_kv_heads for b in blocks]
    legend = [
        (f"query heads {_of(kept, dense)}", HEADS),
        (f"key/value heads {_of(kv_kept, kv_dense)}", KV_HEADS),
        ("removed", REMOVED),
    ]
    out = _legend(axis, top, legend) + _scale(axis, top, "heads", max(dense))
    out += _bars(axis, top, kept, dense, HEADS, "heads")
    for position, kv_heads in enumerate(kv_kept):
        if kv_heads:
            y = _height(top, kv_heads, max(dense))
            width = axis.bar * 0.5
            out.append(
                _rect(axis.centre(position) - width / 2, y, width, _floor(top) - y, KV_HEADS, "kv")
            )
    return out


def _neurons_panel(axis: _Axis, top: float, blocks: Sequence[BlockShape]) -> list[str]:
    kept, dense = [b.width for b in blocks], [b.dense_width for b in blocks]
    legend = [(f"MLP neurons {_of(kept, dense)}", NEURONS), ("removed", REMOVED)]
    out = _legend(axis, top, legend) + _scale(axis, top, "neurons", max(dense))
    return out + _bars(axis, top, kept, dense, NEURONS, "neurons")


def _sparsity_panel(
    axis: _Axis, top: float, blocks: Sequence[BlockShape], sites: Sequence[str]
) -> list[str]:
    out = [_text(axis.left, top + 14, "Weights set to zero", weight="bold")]
    out += _colour_scale(axis.right - 260, top + 4)
    out.append(_text(axis.right + 8, top + HEADING - 4, "mean", fill=FAINT))
    for row, site in enumerate(sites):
        y = top + HEADING + row * ROW
        out.append(_text(axis.left - 8, y + 13, site, anchor="end"))
        shares = [block.sparsity.get(site) for block in blocks]
        for position, share in enumerate(shares):
            if share is None:
                continue
            x = axis.left + position * axis.band
            out.append(_rect(x, y, axis.band, ROW, _colour(share), "cell", stroke="#FFFFFF"))
            if axis.band >= 34:
                ink = "#FFFFFF" if share > 0.7 else INK
                out.append(_text(x + axis.band / 2, y + 13, f"{share:.1%}", 10, ink, "middle"))
        known = [share for share in shares if share is not None]
        out.append(_text(axis.right + 8, y + 13, f"{sum(known) / len(known):.1%}"))
    return out


def _bars(
    axis: _Axis, top: float, kept: Sequence[int], dense: Sequence[int], colour: str, name: str
) -> list[str]:
    """For each block a pale bar as high as the dense block, and the kept part over it."""
    out = []
    full = max(dense)
    for position, (now, before) in enumerate(zip(kept, dense, strict=True)):
        x = axis.centre(position) - axis.bar / 2
        for value, fill, kind in ((before, REMOVED, "dense"), (now, colour, "kept")):
            y = _height(top, value, full)
            out.append(_rect(x, y, axis.bar, _floor(top) - y, fill, f"{kind} {name}"))
        label = f"{now:,}"
        if len(label) * CHARACTER <= axis.band - 2:
            y = _height(top, max(now, before), full) - 4
            out.append(_text(axis.centre(position), y, label, 10, anchor="middle"))
    return out


def _scale(axis: _Axis, top: float, label: str, full: int) -> list[str]:
    """Grid lines with their values at the left, and what is counted beside them."""
    out = []
    for tick in _ticks(full):
        y = _height(top, tick, full)
        out.append(
            f'<line x1="{axis.left:.1f}" x2="{axis.right:.1f}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{FAINT if tick == 0 else GRID}" stroke-width="{1 if tick == 0 else 0.6}"/>'
        )
        out.append(_text(axis.left - 8, y + 4, f"{tick:,}", fill=FAINT, anchor="end"))
    x, y = axis.left - 58, _floor(top) - PANEL / 2 + 8
    return [*out, _text(x, y, label, anchor="middle", turn=True)]


def _block_axis(axis: _Axis, top: float) -> list[str]:
    count = len(axis.indices)
    widest = len(str(max(axis.indices))) * CHARACTER + 8
    step = next(s for s in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 128) if s * axis.band >= widest)
    out = [
        _text(axis.centre(place), top + 15, str(axis.indices[place]), fill=FAINT, anchor="middle")
        for place in range(0, count, step)
    ]
    return [*out, _text((axis.left + axis.right) / 2, top + 33, "block", anchor="middle")]


def _legend(axis: _Axis, top: float, entries: Sequence[tuple[str, str]]) -> list[str]:
    out, x = [], axis.left
    for label, colour in entries:
        out += [_rect(x, top + 4, 11, 11, colour, "legend"), _text(x + 16, top + 14, label)]
        x += 16 + len(label) * CHARACTER + 14
    return out


def _colour_scale(x: float, y: float) -> list[str]:
    out = [_text(x - 6, y + 10, "0%", fill=FAINT, anchor="end")]
    for step in range(20):
        out.append(_rect(x + 10 * step, y, 10.5, 11, _colour(step / 19), "legend"))
    return [*out, _text(x + 206, y + 10, "100%", fill=FAINT)]


def _description(blocks: Sequence[BlockShape], masked: bool) -> str:
    heads = _of([b.heads for b in blocks], [b.dense_heads for b in blocks])
    kv_heads = _of([b.kv_heads for b in blocks], [b.dense_kv_heads for b in blocks])
    neurons = _of([b.width for b in blocks], [b.dense_width for b in blocks])
    text = (
        f"Bars for each of {len(blocks)} blocks. Kept in all: query heads {heads}, "
        f"key/value heads {kv_heads}, MLP neurons {neurons}."
    )
    return text + (" Below, the fraction of zero weights per site and block." if masked else "")


def _of(kept: Sequence[int], dense: Sequence[int]) -> str:
    total, before = sum(kept), sum(dense)
    return f"{total:,} of {before:,}" + (f" ({total / before:.1%})" if before else "")


def _ticks(full: int) -> list[int]:
    """Quarters of the largest value where they are whole, else steps of 1, 2 or 5 times ten^k."""
    if full and full % 4 == 0:
        return [full * quarter // 4 for quarter in range(5)]
    magnitude = 10 ** max(0, len(str(full)) - 2)
    step = next(m * magnitude for m in (1, 2, 5, 10, 20, 50) if full <= 5 * m * magnitude)
    return list(range(0, full + 1, step))


def _floor(top: float) -> float:
    return top + HEADING + PANEL


def _height(top: float, value: float, full: int) -> float:
    """The y of `value` in the panel at `top`; room for a number stays above the highest bar."""
    return _floor(top) - value / max(full, 1) * (PANEL - 16)


def _colour(share: float) -> str:
    last = len(SPARSITY_STOPS) - 1
    place = min(max(share, 0.0), 1.0) * last
    low = min(int(place), last - 1)
    pairs = zip(SPARSITY_STOPS[low], SPARSITY_STOPS[low + 1], strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02X}" for a, b in pairs)


def _rect(
    x: float, y: float, width: float, height: float, fill: str, kind: str, stroke: str = ""
) -> str:
    border = f' stroke="{stroke}" stroke-width="0.6"' if stroke else ""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" fill="{fill}"{border}/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    size: int = 11,
    fill: str = INK,
    anchor: str = "start",
    weight: str = "normal",
    turn: bool = False,
) -> str:
    rotate = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" '
        f'text-anchor="{anchor}" font-weight="{weight}"{rotate}>{_safe(text)}</text>'
    )


def _fit(text: str, room: float, size: int) -> str:
    """Shorten `text` in the middle until it fits `room` pixels; the ends tell names apart."""
    most = int(room / (size * 0.7))
    if len(text) <= most:
        return text
    return text[: most // 2 - 1] + "\u2026" + text[-(most - most // 2) :]


def _safe(text: str) -> str:
    """Escape markup, and drop the characters that XML does not allow."""
    return escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text))
