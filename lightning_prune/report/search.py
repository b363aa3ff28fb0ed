"""A search over distributions of the budget among blocks: a value, a table and files."""

from __future__ import annotations

import csv
import io
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
from lightning_prune.report.grid import number
from lightning_prune.report.search_picture import spread_svg

__all__ = ["Spread", "Trial", "print_spread"]

SHOWN = 10
"""Rows of the table in the terminal; the files have all."""


@dataclass(frozen=True)
class Trial:
    """One distribution.

    Attributes:
        name: "uniform", "as given", or the number of the trial.
        fractions: what is removed from each block that is pruned.
        perplexity: on held-out training text; None where it failed.
        error: why it failed; "" if it did not.
    """

    name: str
    fractions: list[float]
    perplexity: float | None
    error: str = ""

    @property
    def value(self) -> float:
        """The perplexity; infinite where there is none."""
        number = self.perplexity
        return math.inf if number is None or math.isnan(number) else number


@dataclass
class Spread:
    """All trials in their order, the best of them, and what the evaluation text says in the end."""

    model: str
    method: str
    dense: float
    """Perplexity of the dense model on the evaluation text."""
    trials: list[Trial]
    best: Trial
    evaluation: dict[str, float | None]
    """Perplexity on the evaluation text, by name of the distribution; it decided nothing."""
    settings: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> str:
        """How it was measured, in one line."""
        s = self.settings
        return (
            f"{s['held_out']} held-out and {s['windows']} evaluation windows of {s['window']} "
            f"tokens, {s['calibration']}, {s['device']}, {s['dtype']}"
        )

    def summary(self) -> list[tuple[str, float | None, float | None]]:
        """Uniform, as given, and best: held-out and evaluation perplexity."""
        held = {trial.name: trial.perplexity for trial in self.trials}
        held["best"] = self.best.perplexity
        return [(name, held.get(name), value) for name, value in self.evaluation.items()]

    def to_markdown(self) -> str:
        """The summary, the shares of the best, and all trials."""
        lines = [
            f"# {self.model}: shares of the blocks for `{self.method}`",
            "",
            f"Dense: {number(self.dense)}. {self.facts()}.",
            "",
            "| distribution | held-out | evaluation |",
            "| --- | ---: | ---: |",
            *(f"| {n} | {number(held)} | {number(value)} |" for n, held, value in self.summary()),
            "",
            f"Best: trial {self.best.name}, "
            + ", ".join(f"{fraction:.1%}" for fraction in self.best.fractions)
            + ".",
            "",
            "| trial | held-out | fractions |",
            "| --- | ---: | --- |",
        ]
        for trial in self.trials:
            said = trial.error.replace("|", "\\|") or " ".join(f"{f:.3f}" for f in trial.fractions)
            lines.append(f"| {trial.name} | {number(trial.perplexity)} | {said} |")
        return "\n".join([*lines, ""])

    def to_csv(self) -> str:
        """One line a trial."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        blocks = [f"block {i}" for i in range(len(self.best.fractions))]
        writer.writerow(["trial", "perplexity", *blocks, "error"])
        for trial in self.trials:
            value = "" if trial.perplexity is None else trial.perplexity
            writer.writerow([trial.name, value, *trial.fractions, trial.error])
        return text.getvalue()

    def to_json(self) -> str:
        """All of it; infinite and undefined numbers become strings, as JSON has none."""
        return (
            json.dumps(_plain(asdict(self)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )

    def write(self, folder: str | Path) -> dict[str, str]:
        """Write search.md, search.csv, search.json and search.svg; returns their paths by name."""
        given = next(trial for trial in self.trials if trial.name == "as given")
        texts = {
            "search.md": self.to_markdown(),
            "search.csv": self.to_csv(),
            "search.json": self.to_json(),
            "search.svg": spread_svg(
                f"{self.model}: {self.method}",
                self.facts(),
                [trial.value for trial in self.trials],
                given.fractions,
                self.best.fractions,
            ),
        }
        for name, text in texts.items():
            with atomic_write(Path(folder) / name) as file:
                file.write(text)
        return {name: str(Path(folder) / name) for name in texts}


def print_spread(spread: Spread, files: Mapping[str, str], console: Console | None = None) -> None:
    """Print the summary, how it was measured, what failed and why, and the files."""
    console = console or Console()
    title = f"{spread.model}: {spread.method} (dense {number(spread.dense)})"
    console.print(Text(title, "bold"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("distribution")
    table.add_column("held-out", justify="right")
    table.add_column("evaluation", justify="right")
    for name, held, value in spread.summary():
        table.add_row(name, number(held), number(value))
    console.print(table)
    shares = ", ".join(f"{fraction:.1%}" for fraction in spread.best.fractions)
    lines = [spread.facts(), f"best: trial {spread.best.name} of {len(spread.trials)}: {shares}"]
    failed = [trial for trial in spread.trials if trial.error]
    lines += [f"trial {trial.name} failed: {trial.error}" for trial in failed[:SHOWN]]
    for line in [*lines, ""]:
        console.print(Text(line), soft_wrap=True)
    width = max(map(len, files), default=0)
    for name, path in files.items():
        console.print(Text.assemble((f"{name:{width}}", "bold"), f"  {path}"), soft_wrap=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
