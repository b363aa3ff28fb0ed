"""The importance of a model's blocks: as JSON, as a table, and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_prune.files import atomic_write
from lightning_prune.report.picture import FAINT, GRID, INK, _fit, _safe, _text

__all__ = ["Importance", "importance_svg", "print_importance"]

BAR_FILL = "#0072B2"
LEFT, TOP, ROW, BAR, WIDTH, RIGHT = 60.0, 92.0, 20.0, 13.0, 520.0, 90.0

MEANING = {
    "removal": "what the perplexity rises by without it",
    "norm": "mean L2 norm of its output",
    "angular": "mean angle between input and output, over pi",
    "cosine": "mean of 1 - cos(input, output)",
    "mse": "mean squared change",
    "mae": "mean absolute change",
}


@dataclass
class Importance:
    """One number a block.

    Attributes:
        model: what was measured.
        measure: how; a key of `MEANING`.
        part: of what: "block", "attention" or "mlp".
        values: by block.
        settings: windows, length, source of the calibration text, versions.

    Raises:
        ValueError: a number is not finite.
    """

    model: str
    measure: str
    part: str
    values: dict[int, float]
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strange = [block for block, value in self.values.items() if not math.isfinite(value)]
        if strange:
            raise ValueError(
                f"{self.measure} of blocks {strange} of {self.model} is not finite: activations "
                "overflow. Load the model in bfloat16 or float32, or take another measure."
            )

    @property
    def meaning(self) -> str:
        """What the numbers are."""
        part = {"attention": "block's attention", "mlp": "block's MLP"}.get(self.part, "block")
        return f"{self.measure} of each {part}: {MEANING[self.measure]}"

    @property
    def text(self) -> str:
        """What they were measured on."""
        windows, length = self.settings.get("windows"), self.settings.get("length")
        return f"calibration text, {windows} windows of {length} tokens"

    def to_json(self) -> str:
        """As `Inverse(importance=…)` and the other allocations read it."""
        found = asdict(self)
        settings = found.pop("settings")
        return json.dumps(found | settings, indent=2, ensure_ascii=False) + "\n"

    def write(self, folder: str | Path) -> dict[str, str]:
        """Write importance.json and importance.svg; returns their paths by name."""
        texts = {"importance.json": self.to_json(), "importance.svg": importance_svg(self)}
        for name, text in texts.items():
            with atomic_write(Path(folder) / name) as file:
                file.write(text)
        return {name: str(Path(folder) / name) for name in texts}


def print_importance(
    importance: Importance, files: Mapping[str, str], console: Console | None = None
) -> None:
    """Print a bar for each block, what the numbers are, and the files."""
    console = console or Console()
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{importance.model}: importance of blocks"),
        title_style="bold",
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("block", justify="right")
    table.add_column(importance.measure, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    largest = max(map(abs, importance.values.values())) or 1.0
    for block, value in importance.values.items():
        table.add_row(str(block), _number(value), "█" * round(30 * max(value, 0) / largest))
    console.print(table)
    console.print(Text(f"{importance.meaning}; {importance.text}"), soft_wrap=True)
    width = max(map(len, files), default=0)
    for name, path in files.items():
        console.print(Text.assemble((f"{name:{width}}", "bold"), f"  {path}"), soft_wrap=True)


def importance_svg(importance: Importance) -> str:
    """One bar a block, from the first at the top; values below zero go to the left."""
    values = importance.values
    low, high = min(0.0, *values.values()), max(0.0, *values.values())
    span = (high - low) or 1.0
    zero = LEFT + WIDTH * -low / span
    bottom = TOP + ROW * len(values)
    body = []
    for tick in _ticks(low, high):
        x = zero + WIDTH * tick / span
        body.append(_line(x, TOP - 4, x, bottom, GRID if tick else FAINT))
        body.append(_text(x, bottom + 14, f"{tick:.10g}", 10, FAINT, "middle"))
    for row, (block, value) in enumerate(values.items()):
        y = TOP + ROW * row
        x, width = zero + WIDTH * min(value, 0.0) / span, WIDTH * abs(value) / span
        body += [
            _text(LEFT - 10, y + 11, str(block), fill=INK, anchor="end"),
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" '
            f'height="{BAR:.1f}" fill="{BAR_FILL}"/>',
            _text(x + width + 6, y + 11, _number(value), 10, FAINT),
        ]
    body.append(_text(LEFT - 10, TOP - 8, "block", 10, FAINT, "end"))
    width, height = LEFT + WIDTH + RIGHT, bottom + 28
    title = f"{importance.model}: importance of blocks"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" aria-labelledby="importance" '
            'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" font-size="11">',
            f'<title id="importance">{_safe(title)}</title>',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#FFFFFF"/>',
            _text(16, 26, _fit(title, width - 32, 15), size=15, weight="bold"),
            _text(16, 44, _fit(importance.meaning, width - 32, 11), size=11, fill=FAINT),
            _text(16, 59, _fit(importance.text, width - 32, 11), size=11, fill=FAINT),
            *body,
            "</svg>\n",
        ]
    )


def _ticks(low: float, high: float) -> list[float]:
    """Zero and its multiples of a step of 1, 2 or 5 times ten^k; at most eight."""
    magnitude = 10.0 ** math.floor(math.log10((high - low) or 1.0))
    step = next(s * magnitude for s in (0.2, 0.5, 1, 2) if (high - low) / (s * magnitude) <= 7)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.4g}"


def _line(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" '
        'stroke-width="0.8"/>'
    )
