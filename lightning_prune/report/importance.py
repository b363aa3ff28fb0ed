"""The importance of a model's blocks: as JSON, as a table, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_prune.report.charts import ROOM_ALONE, Bars, block_bars
from lightning_prune.report.files import Document
from lightning_prune.report.names import model_name
from lightning_prune.report.plots import document
from lightning_prune.report.tables import Column, Figure, Table
from lightning_prune.tokens import begun

__all__ = ["Importance", "importance_document"]

MEANING = {
    "removal": "what the perplexity rises by without it",
    "norm": "mean L2 norm of its output",
    "angular": "mean angle between input and output, over pi",
    "cosine": "mean of 1 - cos(input, output)",
    "mse": "mean squared change",
    "mae": "mean absolute change",
}
LONGEST = 30
"""Characters of the longest bar in the table."""


@dataclass(frozen=True)
class Importance:
    """One number a block.

    Attributes:
        model: what was measured.
        measure: how; a key of `MEANING`.
        part: of what: "block", "attention" or "mlp".
        values: by block.
        settings: windows, length, what they begin with, source of the calibration text, versions.

    Raises:
        ValueError: a number is not finite.
    """

    model: str
    measure: str
    part: str
    values: Mapping[int, float]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strange = [block for block, value in self.values.items() if not math.isfinite(value)]
        if strange:
            raise ValueError(
                f"{self.measure} of blocks {strange} of {self.model} is not finite: activations "
                "overflow. Load the model in bfloat16 or float32, or take another measure."
            )

    @property
    def meaning(self) -> str:
        """What the numbers measure, in words for an axis or a heading."""
        part = {"attention": "block's attention", "mlp": "block's MLP"}.get(self.part, "block")
        return f"{self.measure} of each {part}: {MEANING[self.measure]}"

    @property
    def text(self) -> str:
        """What they were measured on."""
        windows, length = self.settings.get("windows"), self.settings.get("length")
        begin = begun(self.settings.get("begin"))
        return f"calibration text, {windows} windows of {length} tokens{begin}"


def importance_document(importance: Importance) -> Document:
    """Importance as it is printed, and written as `Inverse(importance=…)` reads it."""
    value = asdict(importance)
    title = f"{model_name(importance.model)}: importance of blocks"
    return Document(
        "importance",
        value | value.pop("settings"),
        printed=[_table(importance, title), f"{importance.meaning}; {importance.text}"],
        picture=_picture(importance, title),
    )


def _table(importance: Importance, title: str) -> Table:
    """A bar for each block."""
    largest = max(map(abs, importance.values.values()), default=1.0) or 1.0
    rows = [
        (Figure(block, str(block)), Figure(value, number_text(value)), _bar(value / largest))
        for block, value in importance.values.items()
    ]
    return Table(title, ("block", importance.measure, Column("", words=True)), rows, words=0)


def _bar(share: float) -> str:
    return "█" * round(LONGEST * max(share, 0.0))


def _picture(importance: Importance, title: str) -> str:
    values = list(importance.values.values())
    plot = block_bars(
        importance.measure,
        f"{importance.meaning}: a bar for each of {len(values)} blocks",
        list(importance.values),
        [Bars(importance.measure, values, "blue", kind="bar", numbered=True)],
        shown=number_text,
        room=ROOM_ALONE,
    )
    return document("importance", title, [importance.meaning, importance.text], [plot])


def number_text(value: float) -> str:
    """Four digits."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.4g}"
