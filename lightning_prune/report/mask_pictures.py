"""Pictures of masks: where zeros are, how they are spread, what they leave, what masks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_prune.analysis.activations import Thresholds
from lightning_prune.analysis.keys import place_of, short_names
from lightning_prune.analysis.portraits import PLACES, MatrixPortrait, Portrait
from lightning_prune.report.drawing import COLOURS, INK, RULE, colour_bar, figure, heat, spy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "curve_page",
    "histogram_page",
    "sparsity_page",
    "spy_page",
    "threshold_page",
    "upset_page",
]

ACROSS = 4
"""Panels side by side."""
MOST_INTERSECTIONS = 20
STYLES = ("-", "--", ":", "-.")


def spy_page(name: str, portrait: Portrait) -> Figure:
    """Each matrix as a picture of its density."""
    page, axes = _panels(f"{name}: where weights stay", portrait.matrices, 2.3)
    image = None
    for panel, (matrix, m) in zip(axes, portrait.matrices.items(), strict=False):
        rows, columns = m.shape
        title = f"{_short(matrix)}  {rows} x {columns}\n{1 - m.zeros_O.mean():.1%} stay"
        image = spy(panel, m.density_YX, m.shape, title)
    page.supxlabel("input features", fontsize=8)
    page.supylabel("output features", fontsize=8)
    colour_bar(page, image, axes, "fraction of the weights of a cell that stay")
    return page


def sparsity_page(name: str, portrait: Portrait) -> Figure:
    """Zeros by block and projection."""
    blocks = sorted({block for block, _ in portrait.zeros})
    kinds = list(dict.fromkeys(kind for _, kind in portrait.zeros))
    shares = [[portrait.zeros.get((b, k), np.nan) for b in blocks] for k in kinds]
    page = figure(f"{name}: fraction of zeros", 1.6 + 0.3 * len(kinds))
    axes = page.subplots()
    values = np.array(shares)
    image = heat(axes, values, list(_kinds(kinds).values()), list(map(str, blocks)), "")
    if len(blocks) <= 16:
        for (row, column), share in np.ndenumerate(values):
            if np.isfinite(share):
                ink = "white" if share > 0.55 else INK
                axes.text(
                    column, row, f"{share:.0%}", ha="center", va="center", fontsize=6, color=ink
                )
    axes.set_xlabel("block", fontsize=8)
    colour_bar(page, image, axes, "fraction of weights that are zero")
    return page


def histogram_page(name: str, portrait: Portrait) -> Figure:
    """How zeros are spread over rows and columns, and how large the weights are that stay."""
    valued = all(m.weights is not None for m in portrait.matrices.values())
    page = figure(f"{name}: rows, columns and weights", 3.6)
    axes = page.subplots(1, 3 if valued else 2, squeeze=False)[0]
    names = _kinds(list(portrait.matrices))
    for number, (matrix, m) in enumerate(portrait.matrices.items()):
        style = _style(number)
        for panel, zeros in zip(axes, (m.zeros_O, m.zeros_I), strict=False):
            counts, edges = np.histogram(zeros, 50, (0, 1))
            panel.stairs(counts / len(zeros), edges, label=names[matrix], **style)
        if m.weights is not None and valued:
            counts, edges = m.weights
            share = counts / max(counts.sum(), 1) / np.diff(edges)
            axes[2].stairs(share, edges, label=names[matrix], **style)
    _name(axes[0], "zeros in a row (output feature)", "fraction of zeros", "fraction of rows")
    _name(axes[1], "zeros in a column (input feature)", "fraction of zeros", "fraction of columns")
    if valued:
        _name(axes[2], "weights that are not zero", "weight", "density (1 / weight)")
        if any(m.weights[0].any() for m in portrait.matrices.values() if m.weights is not None):
            axes[2].set_yscale("log")  # where nothing stays there is nothing to scale
    page.legend(*axes[0].get_legend_handles_labels(), **_below(len(names)))
    return page


def curve_page(name: str, portrait: Portrait) -> Figure | None:
    """How much of all scores the highest hold; None: no scores are known."""
    known = {n: (m, m.curve) for n, m in portrait.matrices.items() if m.curve is not None}
    if not known:
        return None
    what = next(m.scores for m, _ in known.values())
    page = figure(f"{name}: what the highest {what} hold together", 4.6)
    axes = page.subplots()
    names = _kinds(list(known))
    for number, (matrix, (_, curve)) in enumerate(known.items()):
        style = _style(number)
        axes.plot(PLACES, curve.held_Q, label=names[matrix], **style)
        axes.plot(curve.kept, curve.held_by_kept, "o", color=style["color"], markersize=5)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.5)
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    title = "dots: the weights that stay; thin line: if all were equal"
    _name(axes, title, "fraction of the weights, highest first", "fraction of the sum")
    axes.legend(fontsize=7, frameon=False)
    return page


def threshold_page(found: Thresholds) -> Figure:
    """Thresholds of activations over blocks, and what each leaves out."""
    title = f"{found.model}: thresholds that leave out {found.sparsity:.0%} by {found.scope}"
    page = figure(title, 4.2)
    above, below = page.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for site, threshold in found.thresholds.items():
        place = place_of(site)
        if place is not None:
            block, kind = place
            lines.setdefault(kind, []).append((block, threshold, found.reached.get(site, np.nan)))
    names = _kinds(list(lines))
    for number, (kind, points) in enumerate(lines.items()):
        blocks, thresholds, reached = zip(*points, strict=True)
        above.plot(blocks, thresholds, label=names[kind], **_style(number))
        below.plot(blocks, reached, **_style(number))
    above.set_yscale("log")
    above.xaxis.get_major_locator().set_params(integer=True)
    _name(above, "|x| > threshold is kept", "", "threshold (unit of activations)")
    _name(below, "", "block", "fraction left out")
    below.set_ylim(0, 1)
    page.legend(*above.get_legend_handles_labels(), **_below(len(names)))
    return page


def upset_page(names: Sequence[str], shared: Mapping[tuple[str, ...], int]) -> Figure:
    """How many weights stay in just these masks (UpSet, Lex et al. 2014)."""
    total = sum(shared.values())
    drawn = [(inside, count) for inside, count in shared.items() if inside and count]
    drawn = drawn[:MOST_INTERSECTIONS]
    page = figure(f"weights that stay in just these of {len(names)} masks", 4.4)
    bars, dots = page.subplots(2, 1, sharex=True, height_ratios=(3, 0.4 * len(names) + 0.4))
    places = range(len(drawn))
    bars.bar(places, [count / total for _, count in drawn], color=COLOURS[0])
    for place, (_, count) in enumerate(drawn):
        bars.text(
            place, count / total, f"{count / total:.1%}", ha="center", va="bottom", fontsize=7
        )
    none = shared.get((), 0) / total
    _name(bars, f"of {total:,} weights; {none:.1%} stay in none", "", "fraction of all weights")
    for row, name in enumerate(names):
        inside = [place for place in places if name in drawn[place][0]]
        dots.scatter(list(places), [row] * len(drawn), s=18, color=RULE)
        dots.scatter(inside, [row] * len(inside), s=26, color=INK)
    for place, (members, _) in enumerate(drawn):
        rows = [names.index(name) for name in members]
        dots.plot([place, place], [min(rows), max(rows)], color=INK, linewidth=1.2)
    stay = {name: sum(c for inside, c in shared.items() if name in inside) for name in names}
    labels = [f"{name} ({stay[name] / total:.1%} stay)" for name in names]
    dots.set_yticks(range(len(names)), labels, fontsize=8)
    dots.tick_params(length=0)
    dots.set_xticks([])
    dots.set_ylim(len(names) - 0.5, -0.5)
    for side in ("top", "right", "bottom", "left"):
        dots.spines[side].set_visible(False)
    return page


def _panels(
    title: str, matrices: Mapping[str, MatrixPortrait], height: float
) -> tuple[Figure, list[Any]]:
    """A page with a panel for each matrix; those that are left over are empty."""
    down = -(-len(matrices) // ACROSS)
    page = figure(title, 0.8 + height * down)
    axes = list(page.subplots(down, min(ACROSS, len(matrices)), squeeze=False).flat)
    for panel in axes[len(matrices) :]:
        panel.set_axis_off()
    return page, axes


def _kinds(names: Sequence[str]) -> dict[str, str]:
    return short_names(names) if len(names) > 1 else {name: name for name in names}


def _short(name: str) -> str:
    place = place_of(name)
    assert place is not None
    return f"{place[0]}.{place[1].rpartition('.')[2]}"


def _style(number: int) -> dict[str, Any]:
    """Of a line: colours, and dashes for those who see no colours."""
    style = STYLES[number % len(STYLES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": style, "linewidth": 1.3}


def _below(count: int) -> dict[str, Any]:
    return {
        "loc": "outside lower center",
        "ncols": min(count, ACROSS),
        "fontsize": 7,
        "frameon": False,
    }


def _name(axes: Any, title: str, across: str, up: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(across, fontsize=8)
    axes.set_ylabel(up, fontsize=8)
    axes.tick_params(labelsize=7, which="both")
