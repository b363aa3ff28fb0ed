"""Tables of what runs have measured, a row or a column for each run; empty where nothing was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lightning_prune.analysis.store.compared import StoredRun
from lightning_prune.report.numbers import (
    count_text,
    perplexity_text,
    rate_text,
    share_text,
    short_text,
    size_text,
)
from lightning_prune.report.tables import Cell, Figure, Row, Table

__all__ = [
    "circuits_table",
    "patterns_table",
    "recoveries_table",
    "share_figure",
    "similarities_table",
    "sizes_table",
    "tasks_table",
]

SHOWN: dict[str, Callable[[Any], str]] = {
    "parameters": count_text,
    "bytes": size_text,
    "disk_bytes": size_text,
    "forward_tokens_per_second": rate_text,
    "prefill_tokens_per_second": rate_text,
    "decode_tokens_per_second": rate_text,
}
"""Size and speed, and how they are written."""
ELSEWHERE = {*SHOWN, "perplexity", "nonzero", "sparsity", "peak_bytes", "loss"}
"""Metrics that are no task's."""


def patterns_table(runs: Sequence[StoredRun]) -> Table:
    """The share of groups that hold to each pattern, over all matrices."""
    held = {run.label: shares for run in runs if (shares := _held(run))}
    patterns = dict.fromkeys(p for shares in held.values() for p in shares)
    rows: list[Row] = [
        (label, *(share_figure(s.get(p)) for p in patterns)) for label, s in held.items()
    ]
    worth = [row for row in rows if any(isinstance(c, Figure) and c.value for c in row)]
    title = "Groups that hold to a pattern (N kept of M)"
    return Table(title, ("run", *patterns), worth)


def tasks_table(runs: Sequence[StoredRun]) -> Table:
    """Tasks, and other numbers that are no block's, as each run ends."""
    found: dict[tuple[str, ...], dict[str, Cell]] = {}
    for run in runs:
        for line in run.evaluations:
            is_task = line["metric"] not in ELSEWHERE and line["block"] is None
            if is_task and line["stage"] == run.stage and line["value"] is not None:
                error = line["stderr"]
                text = f"{line['value']:.4f}" + (f" ± {error:.4f}" if error is not None else "")
                key = (line["task"] or "", line["metric"])
                found.setdefault(key, {})[run.label] = Figure(line["value"], text)
    return _by_run("Tasks", ("task", "metric"), found, runs)


def sizes_table(runs: Sequence[StoredRun]) -> Table:
    """Size and speed of what each run ends with."""
    found: dict[tuple[str, ...], dict[str, Cell]] = {}
    for name, shown in SHOWN.items():
        for run in runs:
            value = run.value(name, run.stage)
            if value is not None:
                figure = Figure(value, shown(value))
                found.setdefault((name.replace("_", " "),), {})[run.label] = figure
    return _by_run("Size and speed", ("",), found, runs)


def recoveries_table(runs: Sequence[StoredRun]) -> Table:
    """What training has brought back, of what pruning had cost."""
    rows: list[Row] = []
    for run in runs:
        for line in run.recoveries:
            regained = None
            if None not in (line["dense"], line["pruned"], line["recovered"]):
                lost = line["pruned"] - line["dense"]
                regained = (line["pruned"] - line["recovered"]) / lost if lost else None
            values = [Figure(line[s], perplexity_text(line[s])) for s in ("pruned", "recovered")]
            steps, zeros = line["steps"], line["revived"]
            rows.append(
                (
                    run.label,
                    line["adapter"] or "all weights",
                    Figure(steps, f"{steps:,}"),
                    *values,
                    share_figure(regained),
                    Figure(zeros, "-" if zeros is None else f"{zeros:,}"),
                )
            )
    header = ("run", "trained", "steps", "pruned", "recovered", "regained", "zeros revived")
    return Table("Recovery", header, rows, words=2)


def circuits_table(runs: Sequence[StoredRun]) -> Table:
    """The model without parts of a circuit and of its controls."""
    rows: list[Row] = []
    for run in runs:
        drawn = {line["name"] for line in run.circuits if line["draw"] > 1}
        for line in run.circuits:
            draw = f", draw {line['draw']}" if line["name"] in drawn else ""
            ends = f"{line['rate_low']:.1%} to {line['rate_high']:.1%}"
            rows.append(
                (
                    run.label,
                    line["name"] + draw,
                    Figure(line["count"], f"{line['count']:,}"),
                    Figure(line["perplexity"], perplexity_text(line["perplexity"])),
                    Figure(line["rate"], f"{line['rate']:.1%} ({ends})"),
                    Figure(line["score"], f"{line['score']:.3f}"),
                )
            )
    header = ("run", "list", "removed", "perplexity", "rate (95%)", "mean score")
    return Table("Circuits", header, rows, words=2)


def similarities_table(runs: Sequence[StoredRun]) -> Table:
    """Of what was compared, the numbers over all matrices."""
    rows: list[Row] = [
        (
            line["a"],
            line["b"],
            f"{line['measure']} of {line['what']}" + _first(line["count"]),
            Figure(line["value"], _number(line["value"])),
            Figure(line["by_chance"], _number(line["by_chance"])),
        )
        for run in runs
        for line in run.similarities
        if line["name"] is None and line["block"] is None
    ]
    return Table("Similarities", ("A", "B", "measure", "value", "by chance"), rows, words=3)


def share_figure(share: float | None) -> Figure:
    """A fraction as a percentage."""
    return Figure(share, "-" if share is None else share_text(share))


# --- parts ---


def _first(count: int | None) -> str:
    """Of how many members something is, where it is not of all."""
    return "" if count is None else f", first {count:,}"


def _held(run: StoredRun) -> Mapping[str, float]:
    """By pattern, the share of the groups of all matrices; every group of a matrix counts once."""
    sizes = {m["name"]: m["rows"] * m["inputs"] for m in run.matrices}
    found: dict[str, list[tuple[float, float]]] = {}
    for line in run.patterns:
        if line["name"] in sizes:
            found.setdefault(line["pattern"], []).append((line["held"], sizes[line["name"]]))
    return {
        pattern: sum(held * size for held, size in parts) / sum(size for _, size in parts)
        for pattern, parts in found.items()
        if sum(size for _, size in parts)
    }


def _by_run(
    title: str,
    keys: tuple[str, ...],
    found: Mapping[tuple[str, ...], Mapping[str, Cell]],
    runs: Iterable[StoredRun],
) -> Table:
    """A row for each key, a column for each run that has something there."""
    labels = [run.label for run in runs if any(run.label in cells for cells in found.values())]
    rows = [(*key, *(cells.get(label, "-") for label in labels)) for key, cells in found.items()]
    words, compared = len(keys), len(labels)
    return Table(title, (*keys, *labels), rows, words=words, compared=compared, of="run")


def _number(value: float | None) -> str:
    return "-" if value is None else short_text(value)
