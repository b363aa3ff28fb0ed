"""Perplexity, or accuracy, of several methods over several budgets, as one picture.

The height is the logarithm of perplexity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_prune.report.measures import Measure
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
    measure: Measure,
) -> str:
    """Draw one line a method over the targets, and the dense model as a dashed line.

    Args:
        model: what was pruned.
        facts: how it was measured.
        dense: what the dense model comes to.
        targets: what was asked for, from left to right.
        series: by method, what it comes to at every target; None where that is not known.
        title: what is shown.
        axis: what the targets are.
        measure: what is drawn.
    """
    points = {
        name: [None if value is None else Point(value) for value in row]
        for name, row in series.items()
    }
    plot = series_plot(
        title,
        f"{measure.name} (log scale)" if measure.logarithmic else measure.name,
        Point(dense),
        targets,
        points,
        axis,
        logarithmic=measure.logarithmic,
        shown=measure.text,
        tick=_tick if measure.logarithmic else measure.text,
    )
    return document("grid", model, [facts], [plot])


def _tick(value: float) -> str:
    return f"{value:,.10g}" if value < 1e6 else f"{value:.0e}"
