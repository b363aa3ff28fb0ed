"""One model under several methods and budgets: all results, as a table, a picture and files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from lightning_prune.report.files import Document
from lightning_prune.report.grid_picture import grid_svg
from lightning_prune.report.measures import Measure, measure_of
from lightning_prune.report.names import model_name
from lightning_prune.report.tables import Cell as TableCell
from lightning_prune.report.tables import Column, Figure, Row, Table
from lightning_prune.tokens import begun

__all__ = ["Cell", "Grid", "bench_words", "grid_document"]


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
        losses: the summed negative log likelihood of each window, to compare two cells by; empty
            where one of them is not finite.
        accuracy: of a classifier of images: the share that it has right.
    """

    method: str
    target: str
    perplexity: float | None = None
    sparsity: float | None = None
    seconds: float | None = None
    error: str = ""
    losses: Sequence[float] = ()
    accuracy: float | None = None


@dataclass(frozen=True)
class Grid:
    """All cells, in the order asked for, and what they are compared with.

    Attributes:
        model: what was pruned.
        dense: perplexity, or accuracy, of the dense model.
        cells: the results.
        settings: how they were measured: measure, length, windows, calibration, device, dtype,
            versions.
        name: of the files.
        title: what is shown.
        axis: what the targets are.
    """

    model: str
    dense: float
    cells: Sequence[Cell]
    settings: Mapping[str, Any] = field(default_factory=dict)
    name: str = "sweep"
    title: str = "{} by method and sparsity"
    axis: str = "target"

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
        """The best cell at a target."""
        of, sign = self.measure.of, -1 if self.measure.higher_is_better else 1
        known = [c for c in self.cells if c.target == target and _is_finite(of(c))]
        return min(known, key=lambda c: sign * (of(c) or 0.0), default=None)

    @property
    def measure(self) -> Measure:
        """What the cells are compared by."""
        return measure_of(self.settings)

    @property
    def heading(self) -> str:
        """The title, with the name of the measure in it."""
        return self.title.format(self.measure.name)


def grid_document(grid: Grid) -> Document:
    """A grid as it is printed and written: Markdown, CSV, JSON and a picture."""
    model, facts = model_name(grid.model), bench_words(grid.settings)
    measure = grid.measure
    dense = measure.text(grid.dense)
    failed = [f"{c.method} {c.target} failed: {c.error}" for c in grid.cells if c.error]
    lines = {
        method: [_drawn(grid, grid.cell(method, target)) for target in grid.targets]
        for method in grid.methods
    }
    named = grid.heading, grid.axis, measure
    return Document(
        grid.name,
        asdict(grid),
        printed=[_overview(grid, f"{model}: {measure.name} (dense {dense})"), facts, *failed, ""],
        written=[
            f"# {model}: {grid.heading}",
            f"Dense: {dense}. {facts}. Bold: the {measure.best} of a column.",
            _overview(grid, ""),
            _details(grid),
        ],
        rows=_rows(grid),
        picture=grid_svg(model, facts, grid.dense, grid.targets, lines, *named),
    )


def bench_words(settings: Mapping[str, Any]) -> str:
    """How results were measured, in one line."""
    named = ("windows", "length", "calibration", "device", "dtype")
    count, length, *rest = (settings.get(name) for name in named)
    text = f"windows of {length} tokens{begun(settings.get('begin'))}"
    judged = f"{count} {'images' if length is None else text}"
    return ", ".join([judged, *(str(r) for r in rest if r)])


def _overview(grid: Grid, title: str) -> Table:
    """Methods by targets."""
    rows: list[Row] = [
        (method, *(_figure(grid, grid.cell(method, target)) for target in grid.targets))
        for method in grid.methods
    ]
    compared = len(grid.targets)
    header = ("method", *grid.targets)
    return Table(title, header, rows, compared=compared, of="target", code=True)


def _figure(grid: Grid, cell: Cell | None) -> TableCell:
    if cell is None:
        return ""
    if cell.error:
        return "failed"
    return replace(grid.measure.figure(cell), best=cell == grid.best(cell.target))


def _details(grid: Grid) -> Table:
    """A row for each cell, with an error where there is one."""
    failed = any(cell.error for cell in grid.cells)
    header: list[str | Column] = ["method", "target", grid.measure.name, "zeros", "seconds"]
    header += [Column("error", words=True)] if failed else []
    rows: list[Row] = [
        (
            cell.method,
            cell.target,
            grid.measure.figure(cell),
            Figure(cell.sparsity, "-" if cell.sparsity is None else f"{cell.sparsity:.2%}"),
            Figure(cell.seconds, "-" if cell.seconds is None else f"{cell.seconds:.1f}"),
            *((cell.error,) * failed),
        )
        for cell in grid.cells
    ]
    return Table("", header, rows, words=2, code=True)


def _rows(grid: Grid) -> Table:
    """A row for each cell, the dense model first, with all that is known of it."""
    measure = grid.measure.name
    hidden = {"losses", *({"accuracy"} - {measure}), *({"perplexity"} - {measure})}
    columns = [one.name for one in fields(Cell) if one.name not in hidden]
    rows: list[Row] = []
    figures: dict[str, Any] = {measure: grid.dense}
    dense = Cell("dense", "", sparsity=0.0, **figures)
    for cell in (dense, *grid.cells):
        values = [getattr(cell, name) for name in columns]
        rows.append(tuple(v if isinstance(v, str) else Figure(v, str(v)) for v in values))
    return Table("", tuple(columns), rows)


def _drawn(grid: Grid, cell: Cell | None) -> float | None:
    value = None if cell is None else grid.measure.of(cell)
    return value if _is_finite(value) else None


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
