"""Pictures by matplotlib: their pages, their colours and their files.

The colours are those of all other pictures (`report/svg.py`); shares go from white to one dark
colour, so that they are told apart by how bright they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_prune.files import replacing
from lightning_prune.report.svg import PALETTE, SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "INK", "RULE", "colour_bar", "figure", "heat", "save", "spy"]

COLOURS = tuple(PALETTE[name][0] for name in SERIES)
INK, RULE = PALETTE["ink"][0], PALETTE["rule"][0]
WIDTH = 8.27
"""Inches: the width of A4."""
DPI = 150


def figure(title: str, height: float = 4.6) -> Figure:
    """An empty page.

    Args:
        title: above all.
        height: in inches.
    """
    from matplotlib.figure import Figure

    page = Figure(figsize=(WIDTH, height), layout="constrained")
    page.suptitle(title, fontsize=11, fontweight="bold")
    return page


def spy(axes: Any, density_YX: np.ndarray, shape: Sequence[int], title: str) -> Any:
    """Draw the density of a mask; axes are numbers of its rows and columns."""
    drawn = axes.imshow(
        density_YX,
        cmap=_shades(),
        vmin=0,
        vmax=1,
        extent=(0, shape[1], shape[0], 0),
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    return drawn


def heat(
    axes: Any, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str
) -> Any:
    """Draw shares as cells with their names; what is not there (NaN) stays grey."""
    drawn = axes.imshow(values, cmap=_shades(), vmin=0, vmax=1, aspect="auto")
    axes.set_facecolor(PALETTE["pale"][0])
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    step = -(-len(columns) // 32)
    axes.set_xticks(range(0, len(columns), step), columns[::step], fontsize=7)
    axes.set_title(title, fontsize=9)
    return drawn


def colour_bar(page: Figure, drawn: Any, axes: Any, label: str) -> None:
    """Say beside axes what their shades stand for."""
    bar = page.colorbar(drawn, ax=axes)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def save(figures: Mapping[str, Figure], folder: str | Path) -> dict[str, str]:
    """Write figures as PNG and PDF; returns paths by name.

    Raises:
        OSError: the folder cannot be written.
    """
    paths = {}
    for name, drawn in figures.items():
        for kind, facts in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            path = Path(folder) / f"{name}.{kind}"
            with replacing(path) as temporary:
                drawn.savefig(temporary, dpi=DPI, metadata=facts)
            paths[path.name] = str(path)
    return paths


def _shades() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("share", [PALETTE["paper"][0], PALETTE["deep"][0]])
