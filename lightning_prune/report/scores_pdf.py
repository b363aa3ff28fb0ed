"""A PDF of compared scores: agreement by block, ranks against ranks, distributions.

Axes: N numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.analysis.keys import short_names
from lightning_prune.files import replacing
from lightning_prune.report.svg import PALETTE, SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_prune.analysis.scores import ScorePair, ScoreReport, ScoreTable
    from lightning_prune.analysis.statistics import Distribution

__all__ = ["NEEDS", "can_draw", "write_scores_pdf"]

NEEDS = "the picture needs matplotlib: pip install 'lightning-prune[analysis]'"
SIZE = (8.27, 8.27)  # inches; the width of A4
COLOURS = tuple(PALETTE[name][0] for name in SERIES[:3])
BANDS = ((0.01, 0.99, 0.15), (0.05, 0.95, 0.3), (0.25, 0.75, 0.5))
MOST_NAMES = 40


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def write_scores_pdf(path: str | Path, report: ScoreReport) -> None:
    """Draw a page for every pair of scores, and one for every distribution.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; see `can_draw`.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    figures = [_pair_page(pair) for pair in report.pairs]
    figures += [_distribution_page(table, spread) for table, spread in report.distributions]
    with (
        replacing(path) as temporary,
        PdfPages(temporary, metadata={"Title": "Scores", "CreationDate": None}) as pages,
    ):
        for figure in figures:
            pages.savefig(figure)


def _pair_page(pair: ScorePair) -> Figure:
    figure = _page(f"{pair.a.label} and {pair.b.label}: {pair.a.unit} scores")
    *keys, every = pair.agreements
    whole = pair.agreements[every]
    axes = figure.subplot_mosaic([["above", "above"], ["ranks", "kept"]])
    above, ranks, kept = (axes[name] for name in ("above", "ranks", "kept"))
    for name, colour in zip(("pearson", "spearman", "cosine"), COLOURS, strict=True):
        values = [getattr(pair.agreements[key], name) for key in keys]
        label = f"{name.capitalize()} (all: {getattr(whole, name):.3f})"
        above.plot(values, "o-", color=colour, markersize=3, linewidth=1, label=label)
    above.axhline(0, color=PALETTE["rule"][0], linewidth=0.8)
    above.legend(frameon=False, fontsize=8)
    _name_keys(above, keys, pair.a.unit)

    first_N, second_N = pair.points.tolist()
    ranks.plot(first_N, second_N, ".", color=COLOURS[0], markersize=2, alpha=0.4)
    ranks.set(xlim=(0, 1), ylim=(0, 1), title="Ranks, lowest to highest")
    ranks.set(xlabel=pair.a.label, ylabel=pair.b.label)

    overlaps = [pair.agreements[key].overlap for key in keys]
    kept.set_title("Kept by both, of what either keeps")
    known = [overlap for overlap in overlaps if overlap is not None]
    if len(known) == len(keys):
        kept.bar(range(len(keys)), [o.jaccard for o in known], color=COLOURS[0])
        chance = [o.jaccard_by_chance for o in known]
        kept.plot(chance, "_", color=PALETTE["ink"][0], markersize=10, label="by chance")
        kept.legend(frameon=False, fontsize=8)
        kept.set_ylim(0, 1)
        _name_keys(kept, keys, pair.a.unit)
    else:
        kept.text(0.5, 0.5, "no decisions to compare", ha="center", transform=kept.transAxes)
        kept.set_axis_off()
    return figure


def _distribution_page(table: ScoreTable, spread: Mapping[str, Distribution]) -> Figure:
    figure = _page(f"{table.label}: distribution of {table.unit} scores")
    *keys, every = spread
    scale = "log" if spread[every].min > 0 else "symlog"
    above, below = figure.subplots(2, 1)
    places = range(len(keys))
    for low, high, strength in BANDS:
        lower = [spread[key].quantiles[low] for key in keys]
        upper = [spread[key].quantiles[high] for key in keys]
        label = f"{low:.0%} to {high:.0%}"
        above.bar(
            places,
            [b - a for a, b in zip(lower, upper, strict=True)],
            bottom=lower,
            color=COLOURS[0],
            alpha=strength,
            label=label,
        )
    medians = [spread[key].quantiles[0.5] for key in keys]
    above.plot(medians, "_", color=PALETTE["ink"][0], markersize=10, label="median")
    above.set_yscale(scale, **({} if scale == "log" else {"linthresh": _threshold(spread[every])}))
    if scale == "log":  # bars hang from nowhere there, and do not count for its limits
        above.set_ylim(bottom=0.8 * min(spread[key].quantiles[BANDS[0][0]] for key in keys))
    above.set_ylabel("score")
    above.legend(frameon=False, fontsize=8, ncols=4)
    _name_keys(above, keys, table.unit)

    below.stairs(spread[every].histogram, spread[every].edges, fill=True, color=COLOURS[2])
    below.set_yscale("symlog")
    below.set(xlabel="score, all together", ylabel="how many")
    return figure


def _threshold(distribution: Distribution) -> float:
    """Where a scale that has negative numbers and zero too turns from linear to logarithmic."""
    sizes = (abs(value) for value in distribution.quantiles.values())
    return min((size for size in sizes if size > 0), default=1.0)


def _page(title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def _name_keys(axes: Any, keys: list[str], unit: str) -> None:
    if unit == "weight" and len(keys) <= MOST_NAMES:
        names = list(short_names(keys).values())
        axes.set_xticks(range(len(keys)), names, rotation=90, fontsize=5)
        return
    step = -(-len(keys) // 16)
    names = [key if unit != "weight" else str(i) for i, key in enumerate(keys)]
    axes.set_xticks(range(0, len(keys), step), names[::step])
    axes.set_xlabel("matrix, in order" if unit == "weight" else "block")
