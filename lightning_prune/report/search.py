"""A search over distributions of a budget: what it tried, and what it found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from statistics import fmean, stdev
from typing import Any

from lightning_prune.report.charts import ROOM_ALONE, Bars, Curve, block_bars, curves
from lightning_prune.report.files import Document
from lightning_prune.report.names import model_name
from lightning_prune.report.numbers import perplexity_text
from lightning_prune.report.plots import Key, document
from lightning_prune.report.tables import Figure, Row, Table
from lightning_prune.tokens import begun

__all__ = ["Attempt", "Spread", "Trial", "gain_of", "spread_document"]


@dataclass(frozen=True)
class Trial:
    """A model that was pruned by one distribution.

    Attributes:
        name: "as given" or "found".
        fractions: what is removed from each slot.
        perplexity: on held-out training text.
        evaluation: on the evaluation text, which decides nothing.
        losses: the summed negative log likelihood of each held-out window.
    """

    name: str
    fractions: Sequence[float]
    perplexity: float
    evaluation: float
    losses: Sequence[float] = ()

    def beats(self, other: Trial) -> bool:
        """Whether it is better by more than one standard error, window by window.

        A smaller difference would not be there again on other windows.
        """
        gain, error = gain_of(self, other)
        return gain > error


@dataclass(frozen=True)
class Attempt:
    """A stitched model that was judged on the way.

    Attributes:
        name: what made it.
        windows: on how many windows.
        divergence: from the dense model, the mean of a token, in nats.
        fractions: what is removed from each slot.
    """

    name: str
    windows: int
    divergence: float
    fractions: Sequence[float]


@dataclass(frozen=True)
class Spread:
    """What a search has tried, and what it found.

    Attributes:
        model: what was pruned.
        method: the call of the method.
        dense: perplexity of the dense model on the evaluation text.
        slots: names of what gets a share of its own.
        tried: what was stitched and judged, in this order.
        results: what was pruned: as given, and by what was found.
        best: what was found, if it beats the other; see `Trial.beats`.
        settings: how they were measured: per, children, stages, held_out, windows, length,
            calibration, device, dtype.
    """

    model: str
    method: str
    dense: float
    slots: Sequence[str]
    tried: Sequence[Attempt]
    results: Sequence[Trial]
    best: Trial
    settings: Mapping[str, Any] = field(default_factory=dict)


def gain_of(one: Trial, other: Trial) -> tuple[float, float]:
    """By how much the loss of a held-out window falls from another trial, and its standard error.

    Returns:
        Mean difference of the summed negative log likelihood of a window, and the standard error of
        that mean; where losses are not finite, infinite if those of one alone are, and zero.
    """
    finite = [all(map(math.isfinite, trial.losses)) for trial in (one, other)]
    if not all(finite):
        return (math.inf if finite[0] else 0.0), 0.0
    gains = [theirs - own for own, theirs in zip(one.losses, other.losses, strict=True)]
    mean = fmean(gains)
    spread = stdev(gains) if len(gains) > 1 else abs(mean)
    return mean, spread / math.sqrt(len(gains))


def spread_document(spread: Spread) -> Document:
    """A search as it is printed and written: Markdown, CSV, JSON and a picture."""
    model, dense, facts = model_name(spread.model), perplexity_text(spread.dense), _facts(spread)
    shares = ", ".join(f"{fraction:.1%}" for fraction in spread.best.fractions)
    return Document(
        "search",
        asdict(spread),
        printed=[
            _results(spread, f"{model}: {spread.method} (dense {dense})"),
            facts,
            f"{_best(spread)}: {shares}",
            "",
        ],
        written=[
            f"# {model}: shares for `{spread.method}`",
            f"Dense: {dense}. {facts}.",
            _results(spread, ""),
            f"{_best(spread)}.",
            _shares(spread),
            "Stitched models, and their divergence from the dense one:",
            _tried(spread),
        ],
        rows=_rows(spread),
        picture=_picture(spread, model),
    )


def _facts(spread: Spread) -> str:
    """How it was measured, in one line."""
    s, begin = spread.settings, begun(spread.settings.get("begin"))
    stages = " or ".join(map(str, s["stages"]))
    return (
        f"{len(spread.tried)} stitched models on {stages} windows; {s['held_out']} held-out and "
        f"{s['windows']} evaluation windows of {s['length']} tokens{begin}, {s['calibration']}, "
        f"{s['device']}, {s['dtype']}"
    )


def _best(spread: Spread) -> str:
    """Which is the best, and by how much what was found is better than what was given."""
    given, found = spread.results
    mean, error = gain_of(found, given)
    return (
        f"best: {spread.best.name}; from as given to found, the loss of a held-out window falls by "
        f"{mean:.3g} ± {error:.2g}"
    )


def _results(spread: Spread, title: str) -> Table:
    """Held-out and evaluation perplexity of what was pruned."""
    rows: list[Row] = [
        (one.name, *(Figure(v, perplexity_text(v)) for v in (one.perplexity, one.evaluation)))
        for one in spread.results
    ]
    return Table(title, ("distribution", "held-out", "evaluation"), rows)


def _shares(spread: Spread) -> Table:
    """What each slot loses."""
    rows: list[Row] = [
        (name, *(Figure(share, f"{share:.1%}") for share in shares))
        for name, *shares in zip(
            spread.slots, *(one.fractions for one in spread.results), strict=True
        )
    ]
    return Table("", ("removed of", *(one.name for one in spread.results)), rows)


def _tried(spread: Spread) -> Table:
    """A row for each stitched model."""
    rows: list[Row] = [
        (one.name, _count(one), Figure(one.divergence, f"{one.divergence:.4f}"))
        for one in spread.tried
    ]
    return Table("", ("model", "windows", "divergence"), rows)


def _count(one: Attempt) -> Figure:
    return Figure(one.windows, str(one.windows))


def _rows(spread: Spread) -> Table:
    """The same with a column for each slot."""
    rows: list[Row] = [
        (one.name, _count(one), *(Figure(v, str(v)) for v in (one.divergence, *one.fractions)))
        for one in spread.tried
    ]
    return Table("", ("model", "windows", "divergence", *spread.slots), rows)


def _picture(spread: Spread, model: str) -> str:
    """The divergence of stitched models with the best so far, and what each slot loses."""
    most = max(one.windows for one in spread.tried)
    values = [
        (float(place), one.divergence)
        for place, one in enumerate(spread.tried)
        if one.windows == most
    ]
    lowest = accumulate((value for _, value in values), min)
    so_far = [(place, value) for (place, _), value in zip(values, lowest, strict=True)]
    tried = curves(
        "Divergence from the dense model",
        f"A dot for each stitched model that was judged on {most} windows, and a line along the "
        "lowest so far",
        [
            Curve("lowest so far", _steps(so_far), "vermillion", dotted=False),
            Curve("stitched model", values, "blue", drawn=False, dotted=True),
        ],
        keys=[Key("stitched model", "blue", 0), Key("lowest so far", "vermillion")],
        x_name="stitched models",
        room=ROOM_ALONE,
    )
    given, found = spread.results
    of = spread.settings["per"]
    shares = block_bars(
        f"Removed from each {of}",
        f"Two bars for each {of}: what the method as given removes, and what was found",
        range(len(spread.slots)),
        [
            Bars("as given", given.fractions, "grey", (0.0, 0.5), "given"),
            Bars("found", found.fractions, "blue", (0.5, 1.0), "best"),
        ],
        [Key("as given", "grey"), Key("found", "blue")],
        shown=lambda share: f"{100 * share:.3g}%",
        room=ROOM_ALONE,
    )
    plots = [tried, shares] if tried is not None else [shares]
    return document("search", model, [spread.method, _facts(spread)], plots)


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A line that stays as it is until it falls."""
    line = [points[0]]
    for (_, before), (x, now) in zip(points, points[1:], strict=False):
        line += [(x, before), (x, now)]
    return line
