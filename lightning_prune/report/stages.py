"""The stages of a run as a table, and a few words about them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress

from lightning_prune.report.measures import MEASURES
from lightning_prune.report.numbers import (
    count_text,
    duration_text,
    rate_text,
    roughly,
    size_text,
)
from lightning_prune.report.report import Report, StageMetrics
from lightning_prune.report.tables import Column, Figure, Row, Table
from lightning_prune.tokens import begun

__all__ = ["seconds_words", "stage_table", "windows_words"]

ZEROS_NOTE = "Zeros in dense tensors save neither bytes nor time."


def stage_table(report: Report, counted: Callable[[int], str] = count_text) -> Table:
    """One row per stage: perplexity or accuracy, parameters, zeros, bytes and speed.

    What was measured of no stage has no column. Where there is a stage "dense", the figures of the
    others are followed by their relation to it; not the speed of one that has only more zeros,
    which do the same work.

    Args:
        report: of the run.
        counted: a number of parameters as text.
    """
    dense = report.stages.get("dense")
    compared = dense if len(report.stages) > 1 else None
    related = ("% of dense", "x dense") if compared else ("", "")
    columns = (
        *(measure.column(compared is not None) for measure in MEASURES.values()),
        Column("parameters", related[0]),
        Column("zeros"),
        Column("size"),
        Column(f"{report.settings.get('unit', 'tokens')}/s", related[1]),
    )
    figures = [_figures(stage, compared, counted) for stage in report.stages.values()]
    known = [any(row[i].value is not None for row in figures) for i in range(len(columns))]
    header: list[str | Column] = ["stage", *compress(columns, known)]
    rows: list[Row] = [
        (name, *compress(row, known)) for name, row in zip(report.stages, figures, strict=True)
    ]
    masked = dense is not None and any(s.only_masked(dense) for s in report.stages.values())
    return Table(_title(report), header, rows, ZEROS_NOTE if masked else "")


def seconds_words(report: Report) -> str:
    """How long each part of the run took, in one line."""
    parts = (f"{name} {duration_text(value)}" for name, value in report.seconds.items())
    return f"time: {', '.join(parts)}"


def windows_words(report: Report) -> str:
    """What perplexity, or accuracy, is of; "" if it was not measured."""
    length, count = (report.settings.get(key) for key in ("length", "validation_windows"))
    if count and report.settings.get("unit") == "images":
        return f"{count:,} images"
    begin = begun(report.settings.get("begin"))
    return f"{count or ''} windows of {length} tokens{begin}".strip() if length else ""


def _title(report: Report) -> str:
    how = (report.settings.get(name) for name in ("device", "dtype"))
    facts = ", ".join(str(fact) for fact in (windows_words(report), *how) if fact)
    return "\n".join(filter(None, [report.model, report.method, facts]))


def _figures(
    stage: StageMetrics, dense: StageMetrics | None, counted: Callable[[int], str]
) -> list[Figure]:
    """The figures of a stage, each with its relation to that of `dense`; none for itself."""
    before = None if stage is dense else dense
    speed, speed_before = (s.tokens_per_second if s else None for s in (stage, before))
    differs = before is not None and not stage.same_work(before)
    share = f"{stage.parameters / max(before.parameters, 1):.1%}" if before is not None else ""
    return [
        *(measure.figure(stage, before) for measure in MEASURES.values()),
        Figure(stage.parameters, counted(stage.parameters), share),
        Figure(stage.zeros, f"{stage.zeros:.1%}"),
        Figure(stage.bytes, size_text(stage.bytes)),
        Figure(
            speed,
            "-" if speed is None else rate_text(speed),
            roughly(speed, speed_before) if differs else "",
        ),
    ]
