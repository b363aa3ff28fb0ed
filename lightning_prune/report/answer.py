"""The answer of a query as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from lightning_prune.analysis.store.results import Answer
from lightning_prune.report.numbers import moment_text
from lightning_prune.report.tables import Cell, Column, Figure, Table

__all__ = ["answer_table"]


def answer_table(answer: Answer) -> Table:
    """The rows that a query has found."""
    numeric = [_is_numeric(answer.rows, i) for i in range(len(answer.columns))]
    header = [
        name if number else Column(name, words=True)
        for name, number in zip(answer.columns, numeric, strict=True)
    ]
    shown = len(answer.rows)
    note = f"The first {shown:,} rows; --format csv writes all." if answer.more else ""
    note = note or ("" if shown else "No rows.")
    return Table("", header, [[_cell(v) for v in row] for row in answer.rows], note, words=0)


def _is_numeric(rows: Sequence[Sequence[Any]], i: int) -> bool:
    return all(isinstance(row[i], (int, float, type(None))) for row in rows)


def _cell(value: Any) -> Cell:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return moment_text(value.isoformat()) if isinstance(value, datetime) else str(value)
    if not math.isfinite(value):
        return Figure(value, "not a number" if math.isnan(value) else "infinite")
    return Figure(value, f"{value:.6g}" if isinstance(value, float) else str(value))
