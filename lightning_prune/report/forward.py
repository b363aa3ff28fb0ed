"""How fast classifiers are, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_prune.evaluation.results import Evaluation
from lightning_prune.report.numbers import rate_text, roughly, seconds_text, size_text
from lightning_prune.report.tables import Figure, Row, Table

__all__ = ["forward_table"]

_KINDS: tuple[tuple[str, Any, Any], ...] = (
    ("images/s", lambda f: f.images_per_second, rate_text),
    ("time for a batch", lambda f: f.seconds, seconds_text),
    ("peak memory", lambda f: f.peak_bytes, size_text),
)


def forward_table(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Images a second, time and memory, for each batch size; None if none was measured.

    Models with as many parameters as the first are not compared with it: they do the same work.
    """
    tables = {name: {f.batch_size: f for f in e.forwards} for name, e in evaluations.items()}
    sizes = dict.fromkeys(size for table in tables.values() for size in table)
    counts = [e.size.parameters if e.size is not None else None for e in evaluations.values()]
    rows: list[Row] = []
    for batch_size in sizes:
        speeds = [table.get(batch_size) for table in tables.values()]
        for name, get, shown in _KINDS:
            values = [None if speed is None else get(speed) for speed in speeds]
            if any(value is not None for value in values):
                figures = [
                    Figure(
                        value,
                        "-" if value is None else shown(value),
                        roughly(value, values[0]) if i and counts[i] != counts[0] else "",
                    )
                    for i, value in enumerate(values)
                ]
                rows.append((name, str(batch_size), *figures))
    note = "Medians of forward passes. Memory on a CPU is that of the whole process."
    header = ("", "batch", *evaluations)
    return Table("Speed and memory", header, rows, note, compared=len(tables)) if rows else None
