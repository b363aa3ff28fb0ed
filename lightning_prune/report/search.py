"""A search over distributions of the budget among blocks: its trials, and what it found."""

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
from lightning_prune.report.tables import Column, Figure, Row, Table
from lightning_prune.tokens import begun

__all__ = ["Spread", "Trial", "spread_document"]

SHOWN = 10
"""Failed trials that are printed; the files have all."""


@dataclass(frozen=True)
class Trial:
    """One distribution.

    Attributes:
        name: "uniform", "as given", or the number of the trial.
        fractions: what is removed from each block that is pruned.
        perplexity: on held-out training text; None where it failed.
        error: why it failed; "" if it did not.
        losses: the summed negative log likelihood of each held-out window.
    """

    name: str
    fractions: list[float]
    perplexity: float | None
    error: str = ""
    losses: Sequence[float] = ()

    @property
    def value(self) -> float:
        """The perplexity; infinite where there is none."""
        number = self.perplexity
        return math.inf if number is None or math.isnan(number) else number

    def beats(self, other: Trial) -> bool:
        """Whether it is better by more than one standard error, window by window.

        A smaller difference would not be there again on other windows.
        """
        gain, error = gain_of(self, other)
        return gain > error


@dataclass(frozen=True)
class Spread:
    """All trials, the best of them, and what the evaluation text says in the end.

    Attributes:
        model: what was pruned.
        method: the call of the method.
        dense: perplexity of the dense model on the evaluation text.
        trials: in their order; the first two are "uniform" and "as given".
        best: the trial that no later one beats; see `Trial.beats`.
        evaluation: perplexity on the evaluation text, by name of the distribution; it decided
            nothing.
        settings: how they were measured: held_out, windows, length, calibration, device, dtype.
    """

    model: str
    method: str
    dense: float
    trials: Sequence[Trial]
    best: Trial
    evaluation: Mapping[str, float | None]
    settings: Mapping[str, Any] = field(default_factory=dict)


def gain_of(one: Trial, other: Trial) -> tuple[float, float]:
    """By how much the loss of a held-out window falls from another trial, and its standard error.

    Returns:
        Mean difference of the summed negative log likelihood of a window, and the standard error of
        that mean; of trials without losses, infinite if one alone has a result, and zero.
    """
    if not one.losses or len(one.losses) != len(other.losses):
        return (math.inf if one.value < other.value else 0.0), 0.0
    gains = [theirs - own for own, theirs in zip(one.losses, other.losses, strict=True)]
    mean = fmean(gains)
    spread = stdev(gains) if len(gains) > 1 else abs(mean)
    return mean, spread / math.sqrt(len(gains))


def spread_document(spread: Spread) -> Document:
    """A search as it is printed and written: Markdown, CSV, JSON and a picture."""
    model, dense, facts = model_name(spread.model), perplexity_text(spread.dense), _facts(spread)
    shares = ", ".join(f"{fraction:.1%}" for fraction in spread.best.fractions)
    failed = [f"trial {t.name} failed: {t.error}" for t in spread.trials if t.error]
    return Document(
        "search",
        asdict(spread),
        printed=[
            _summary(spread, f"{model}: {spread.method} (dense {dense})"),
            facts,
            f"best: trial {spread.best.name} of {len(spread.trials)}: {shares}",
            *failed[:SHOWN],
            "",
        ],
        written=[
            f"# {model}: shares of the blocks for `{spread.method}`",
            f"Dense: {dense}. {facts}.",
            _summary(spread, ""),
            f"Best: trial {spread.best.name}, {shares}.",
            _trials(spread),
        ],
        rows=_rows(spread),
        picture=_picture(spread, model),
    )


def _facts(spread: Spread) -> str:
    """How it was measured, in one line."""
    s = spread.settings
    return (
        "a trial wins by more than a standard error, window by window; "
        f"{s['held_out']} held-out and {s['windows']} evaluation windows of {s['length']} tokens"
        f"{begun(s.get('begin'))}, {s['calibration']}, {s['device']}, {s['dtype']}"
    )


def _summary(spread: Spread, title: str) -> Table:
    """Uniform, as given, and best: held-out and evaluation perplexity."""
    held = {trial.name: trial.perplexity for trial in spread.trials}
    held["best"] = spread.best.perplexity
    rows: list[Row] = [
        (name, *(Figure(v, perplexity_text(v)) for v in (held.get(name), value)))
        for name, value in spread.evaluation.items()
    ]
    return Table(title, ("distribution", "held-out", "evaluation"), rows)


def _trials(spread: Spread) -> Table:
    """A row for each trial, with its shares or its error."""
    rows = [
        (
            trial.name,
            Figure(trial.perplexity, perplexity_text(trial.perplexity)),
            trial.error or " ".join(f"{fraction:.3f}" for fraction in trial.fractions),
        )
        for trial in spread.trials
    ]
    return Table("", ("trial", "held-out", Column("fractions", words=True)), rows)


def _rows(spread: Spread) -> Table:
    """The same with a column for each block."""
    blocks = [f"block {i}" for i in range(len(spread.best.fractions))]
    rows: list[Row] = [
        (t.name, *(Figure(v, str(v)) for v in (t.perplexity, *t.fractions)), t.error)
        for t in spread.trials
    ]
    return Table("", ("trial", "perplexity", *blocks, "error"), rows)


def _picture(spread: Spread, model: str) -> str:
    """The perplexity of every trial with the best so far, and what each block loses."""
    values = [trial.value for trial in spread.trials]
    points = [(float(place), value) for place, value in enumerate(values)]
    so_far = [(float(place), value) for place, value in enumerate(accumulate(values, min))]
    trials = curves(
        "Perplexity on held-out text",
        "A dot for each trial, and a line along the best so far",
        [
            Curve("best so far", _steps(so_far), "vermillion", dotted=False),
            Curve("trial", points, "blue", drawn=False, dotted=True),
        ],
        keys=[Key("trial", "blue", 0), Key("best so far", "vermillion")],
        x_name="trial (0: uniform, 1: as given)",
        room=ROOM_ALONE,
    )
    given = next((t for t in spread.trials if t.name == "as given"), spread.trials[0])
    shares = block_bars(
        "Removed from each block",
        "Two bars for each block: what the method as given removes, and what the best trial does",
        range(len(spread.best.fractions)),
        [
            Bars("as given", given.fractions, "grey", (0.0, 0.5), "given"),
            Bars("best", spread.best.fractions, "blue", (0.5, 1.0), "best"),
        ],
        [Key("as given", "grey"), Key("best", "blue")],
        shown=lambda share: f"{100 * share:.3g}%",
        room=ROOM_ALONE,
    )
    plots = [trials, shares] if trials is not None else [shares]
    return document("search", model, [spread.method, _facts(spread)], plots)


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A line that stays as it is until it falls."""
    line = [points[0]]
    for (_, before), (x, now) in zip(points, points[1:], strict=False):
        line += [(x, before), (x, now)]
    return line
