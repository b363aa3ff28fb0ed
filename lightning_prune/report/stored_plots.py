"""Pictures of runs side by side: perplexity by target, and what each run took where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_prune.analysis.store.compared import StoredRun
from lightning_prune.report.charts import Curve, curves, heat_map
from lightning_prune.report.numbers import perplexity_text
from lightning_prune.report.plots import Key, Plot
from lightning_prune.report.series import Point, series_plot
from lightning_prune.report.svg import SERIES

__all__ = ["block_plots", "perplexity_plots"]

MOST_LINES = len(SERIES)
"""Of more, the colours would repeat."""
MOST_MAPS = 12


def perplexity_plots(runs: Sequence[StoredRun]) -> list[Plot]:
    """For each model, a line a method over what was asked for, with the dense model."""
    plots = []
    for model in dict.fromkeys(run.facts["model"] for run in runs):
        of_model = [run for run in runs if run.facts["model"] == model and run.facts["method"]]
        dense = next((v for run in of_model if (v := run.value("perplexity", "dense"))), None)
        judged = {
            (str(run.facts["method"]), run.facts["target"]): value
            for run in of_model
            if run.facts["target"] and _is_drawn(value := run.value("perplexity", run.stage))
        }
        methods = list(dict.fromkeys(method for method, _ in judged))[:MOST_LINES]
        targets = sorted({target for _, target in judged}, key=_order)
        if dense is None or not judged:
            continue
        series = {m: [_point(judged.get((m, t))) for t in targets] for m in methods}
        plots.append(
            series_plot(
                f"Perplexity of {model}",
                "perplexity (log scale)",
                Point(dense),
                targets,
                series,
                "asked for: fraction of zeros or of parameters; N:M keeps N of M",
                logarithmic=True,
                shown=perplexity_text,
                tick=lambda value: f"{value:,.10g}" if value < 1e6 else f"{value:.0e}",
            )
        )
    return plots


def block_plots(runs: Sequence[StoredRun]) -> list[Plot]:
    """Block by block: the norm that is left, a line a run; and what is gone, a map a run."""
    looked = [run for run in runs if run.matrices]
    lines, keys = [], []
    for run, colour in zip(looked, SERIES, strict=False):
        if points := _norms(run):
            lines.append(Curve(run.label, points, colour))
            keys.append(Key(run.label, colour))
    title = "Norm that is left of each block's matrices, of the dense model's"
    kept = curves(title, f"{title}: a line for each of {len(lines)} runs", lines, keys=keys,
                  x_name="block")  # fmt: skip
    return ([kept] if kept is not None else []) + [_map(run) for run in looked[:MOST_MAPS]]


def _norms(run: StoredRun) -> list[tuple[float, float]]:
    """By block, the norm of all its matrices over what it was when dense."""
    squares: dict[int, list[float]] = {}
    for m in run.matrices:
        if m["norm_before"]:
            left, before = squares.setdefault(m["block"], [0.0, 0.0])
            squares[m["block"]] = [left + m["norm"] ** 2, before + m["norm_before"] ** 2]
    return [(float(b), math.sqrt(left / before)) for b, (left, before) in sorted(squares.items())]


def _map(run: StoredRun) -> Plot:
    """Kinds of matrices by blocks: the fuller the colour, the more is gone."""
    by_place: Mapping[tuple[str, int], Any] = {(m["kind"], m["block"]): m for m in run.matrices}
    blocks = sorted({block for _, block in by_place})
    kinds = list(dict.fromkeys(kind for kind, _ in by_place))
    rows = {
        kind.rpartition(".")[2]: [
            run.gone([by_place[kind, block]]) if (kind, block) in by_place else None
            for block in blocks
        ]
        for kind in kinds
    }
    title = f"{run.label}: zero or cut"
    return heat_map(title, f"{title}, {len(kinds)} kinds by {len(blocks)} blocks", blocks, rows)


def _order(target: str) -> tuple[bool, float, str]:
    """Numbers by size, then patterns."""
    return (":" in target, 0.0 if ":" in target else float(target), target)


def _point(value: float | None) -> Point | None:
    return None if value is None else Point(value)


def _is_drawn(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0
