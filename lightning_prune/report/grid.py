"""One model under several methods and sparsities: the results as a value, a table and files."""

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
from lightning_prune.report.grid_picture import grid_svg
from lightning_prune.tokens import begun

__all__ = ["Cell", "Grid", "grid_table", "number", "print_grid"]


@dataclass(frozen=True)
class Cell:
    """What one method reached at one target; None where it failed.

    Attributes:
        method: the method's name, with the arguments that are not defaults.
        target: what was asked for: "50%", or a pattern such as "2:4".
        perplexity: over the windows named in the grid's settings.
        sparsity: fraction of the weights of the blocks' Linears that are zero or gone.
        seconds: that pruning took, calibration included.
        error: why there is no result; "" if there is one.
    """

    method: str
    target: str
    perplexity: float | None = None
    sparsity: float | None = None
    seconds: float | None = None
    error: str = ""


@dataclass
class Grid:
    """All cells, in the order asked for, and what they are compared with."""

    model: str
    dense: float
    """Perplexity of the dense model."""
    cells: list[Cell]
    settings: dict[str, Any] = field(default_factory=dict)
    """How it was measured: window, windows, calibration, device, dtype, versions."""
    name: str = "sweep"
    """Of the files."""
    title: str = "perplexity by method and sparsity"
    axis: str = "zeros asked for (N:M: N kept of M)"
    """What the targets are."""

    @property
    def methods(self) -> list[str]:
        """The methods, in order."""
        return list(dict.fromkeys(cell.method for cell in self.cells))

    @property
    def targets(self) -> list[str]:
        """The targets, in order."""
        return list(dict.fromkeys(cell.target for cell in self.cells))

    def cell(self, method: str, target: str) -> Cell | None:
        """One cell; None if it was not asked for."""
        return next((c for c in self.cells if (c.method, c.target) == (method, target)), None)

    def best(self, target: str) -> Cell | None:
        """The cell of lowest perplexity at a target."""
        found = [c for c in self.cells if c.target == target and _finite(c.perplexity)]
        return min(found, key=lambda c: c.perplexity or math.inf, default=None)

    def facts(self) -> str:
        """How it was measured, in one line."""
        named = ("windows", "window", "calibration", "device", "dtype")
        count, window, *rest = (self.settings.get(name) for name in named)
        told = f"{count} windows of {window} tokens{begun(self.settings.get('begin'))}"
        return ", ".join([told, *(str(r) for r in rest if r)])

    def to_markdown(self) -> str:
        """The table, methods by targets, then the details of every cell."""
        targets, rows = self.targets, []
        for method in self.methods:
            cells = [self.cell(method, target) for target in targets]
            rows.append([f"`{method}`", *(self._shown(c, "**{}**") for c in cells)])
        details = [
            [
                f"`{c.method}`",
                c.target,
                number(c.perplexity),
                "-" if c.sparsity is None else f"{c.sparsity:.2%}",
                "-" if c.seconds is None else f"{c.seconds:.1f}",
                c.error.replace("|", "\\|"),
            ]
            for c in self.cells
        ]
        failed = any(c.error for c in self.cells)
        head = ["method", "target", "perplexity", "zeros", "seconds", *(["error"] * failed)]
        return "\n".join(
            [
                f"# {self.model}: {self.title}",
                "",
                f"Dense: {number(self.dense)}. {self.facts()}. Bold: the lowest of a column.",
                "",
                *_markdown(["method", *targets], rows),
                "",
                *_markdown(head, [row[: len(head)] for row in details]),
                "",
            ]
        )

    def to_csv(self) -> str:
        """One line per cell; the dense model first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["method", "target", "perplexity", "sparsity", "seconds", "error"])
        writer.writerow(["dense", "", self.dense, 0.0, "", ""])
        for cell in self.cells:
            writer.writerow("" if value is None else value for value in asdict(cell).values())
        return text.getvalue()

    def to_json(self) -> str:
        """The grid as JSON; infinite and undefined numbers become strings, as JSON has none."""
        value = asdict(self)
        for cell in (value, *value["cells"]):
            for name in ("dense", "perplexity"):
                if isinstance(cell.get(name), float) and not math.isfinite(cell[name]):
                    cell[name] = str(cell[name])
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, folder: str | Path) -> dict[str, str]:
        """Write sweep.md, sweep.csv, sweep.json and sweep.svg, or so; returns paths by name."""
        texts = {
            f"{self.name}.md": self.to_markdown(),
            f"{self.name}.csv": self.to_csv(),
            f"{self.name}.json": self.to_json(),
            f"{self.name}.svg": grid_svg(
                self.model,
                self.facts(),
                self.dense,
                self.targets,
                {m: [_value(self.cell(m, t)) for t in self.targets] for m in self.methods},
                self.title,
                self.axis,
            ),
        }
        for name, text in texts.items():
            with atomic_write(Path(folder) / name) as file:
                file.write(text)
        return {name: str(Path(folder) / name) for name in texts}

    def _shown(self, cell: Cell | None, best: str) -> str:
        if cell is None:
            return ""
        if cell.error:
            return "failed"
        return (best if cell == self.best(cell.target) else "{}").format(number(cell.perplexity))


def grid_table(grid: Grid) -> Table:
    """Methods by targets: perplexity, the lowest of a column bold."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{grid.model}: perplexity (dense {number(grid.dense)})"),
        title_style="bold",
        title_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("method")
    for target in grid.targets:
        table.add_column(target, justify="right", no_wrap=True)
    for method in grid.methods:
        cells = [grid.cell(method, target) for target in grid.targets]
        shown = [
            Text(grid._shown(c, "{}"), "bold" if c and c == grid.best(c.target) else "")
            for c in cells
        ]
        table.add_row(Text(method), *shown)
    return table


def print_grid(grid: Grid, files: Mapping[str, str], console: Console | None = None) -> None:
    """Print the table, how it was measured, what failed and why, and the files."""
    console = console or Console()
    console.print(grid_table(grid))
    lines = [grid.facts(), ""]
    lines += [f"{c.method} {c.target} failed: {c.error}" for c in grid.cells if c.error]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    width = max(map(len, files), default=0)
    for name, path in files.items():
        console.print(Text.assemble((f"{name:{width}}", "bold"), f"  {path}"), soft_wrap=True)


def number(value: float | None) -> str:
    """A perplexity with as many digits as mean something."""
    if value is None:
        return "-"
    if not math.isfinite(value) or value >= 1e6:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def _value(cell: Cell | None) -> float | None:
    return cell.perplexity if cell is not None and _finite(cell.perplexity) else None


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
