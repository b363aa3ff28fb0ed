"""What models are compared by, and how it is written: perplexity, or accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning_prune.report.numbers import perplexity_text, times
from lightning_prune.report.tables import Column, Figure

__all__ = ["ACCURACY", "MEASURES", "PERPLEXITY", "Measure", "accuracy_text", "measure_of", "points"]


def accuracy_text(value: float | None) -> str:
    """A percentage, to a hundredth."""
    return "-" if value is None else f"{value:.2%}"


def points(value: float | None, dense: float | None) -> str:
    """The difference to the dense model's, in percentage points."""
    if value is None or dense is None:
        return ""
    return f"{100 * (value - dense):+.2f}".replace("-", "−")


@dataclass(frozen=True)
class Measure:
    """A number that says how good a model is.

    Attributes:
        name: of it, and of the attribute that holds it.
        text: writes it.
        relation: says how it compares to the dense model's.
        related: what that relation is, for the head of a table.
        higher_is_better: than a lower one.
        logarithmic: whether pictures show its logarithm.
    """

    name: str
    text: Callable[[float | None], str]
    relation: Callable[[float | None, float | None], str]
    related: str
    higher_is_better: bool = False
    logarithmic: bool = False

    def of(self, result: Any) -> float | None:
        """What a result, a stage of a run or a cell of a grid, has of it."""
        value: float | None = getattr(result, self.name)
        return value

    def figure(self, result: Any, before: Any = None) -> Figure:
        """What a result has of it, beside what `before` has, for a table."""
        value, earlier = self.of(result), None if before is None else self.of(before)
        return Figure(value, self.text(value), self.relation(value, earlier))

    def column(self, compared: bool) -> Column:
        """Of a table."""
        return Column(self.name, self.related if compared else "")

    @property
    def best(self) -> str:
        """Which of several is the best, in a word."""
        return "highest" if self.higher_is_better else "lowest"


PERPLEXITY = Measure("perplexity", perplexity_text, times, "x dense", logarithmic=True)
ACCURACY = Measure("accuracy", accuracy_text, points, "points", higher_is_better=True)
TOP5 = Measure("top5", accuracy_text, points, "points", higher_is_better=True)

MEASURES = {measure.name: measure for measure in (PERPLEXITY, ACCURACY, TOP5)}
"""By name."""


def measure_of(settings: Any) -> Measure:
    """What results with these settings are compared by."""
    return MEASURES[settings.get("measure", "perplexity")]
