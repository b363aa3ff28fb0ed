"""Perplexity of several methods over several budgets, as one picture.

The height is the logarithm of perplexity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_prune.report.numbers import perplexity_text
from lightning_prune.report.plots import document
from lightning_prune.report.series import Point, series_plot

__all__ = ["grid_svg"]


def grid_svg(
    model: str,
    facts: str,
    dense: float,
    targets: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    title: str,
    axis: str,
) -> str:
    """Draw one line a method over the targets, and the dense model as a dashed line.

    Args:
        model: what was pruned.
        facts: how it was measured.
        dense: perplexity of the dense model.
        targets: what was asked for, from left to right.
        series: by method, its perplexity at every target; None where there is none.
        title: what is shown.
        axis: what the targets are.
    """
    points = {
        name: [None if value is None else Point(value) for value in row]
        for name, row in series.items()
    }
    plot = series_plot(
        title,
        "perplexity (log scale)",
        Point(dense),
        targets,
        points,
        axis,
        logarithmic=True,
        shown=perplexity_text,
        tick=_tick,
    )
    return document("grid", model, [facts], [plot])


def _tick(value: float) -> str:
    return f"{value:,.10g}" if value < 1e6 else f"{value:.0e}"
