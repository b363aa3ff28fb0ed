"""Runs, and what was measured of models one at a time, as the store keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_prune.analysis.store.described import asked_of, matrix_rows, plan_rows
from lightning_prune.analysis.store.rows import Curve, Recovery, Row, Run
from lightning_prune.analysis.store.rows import Evaluation as Measured
from lightning_prune.analysis.zeros import SparsityReport
from lightning_prune.evaluation.agreement import Agreement
from lightning_prune.evaluation.results import Evaluation
from lightning_prune.plan import Plan
from lightning_prune.report.comparison import Comparison
from lightning_prune.report.names import model_name
from lightning_prune.report.report import Report, StageMetrics

__all__ = [
    "agreement_run",
    "comparison_runs",
    "evaluation_runs",
    "judged_rows",
    "report_rows",
    "zeros_run",
]

MODEL = "model"
"""The stage of a model that was looked at, not made."""


def report_rows(report: Report) -> list[Row]:
    """What a run has measured: stages, evaluations, importance, curves and recovery."""
    on: dict[str, Any] = {
        "task": report.configuration.get("texts", {}).get("validation"),
        "split": "validation",
        "length": report.settings.get("length"),
        "samples": report.settings.get("validation_windows"),
    }
    rows: list[Row] = []
    for stage, metrics in report.stages.items():
        rows += _stage_rows(stage, metrics, on)
    for stage, evaluation in report.evaluations.items():
        rows += judged_rows(stage, evaluation)
    for name, values in report.importance.items():
        rows += [Measured("dense", name, value, block=index) for index, value in values.items()]
    for name, points in report.curves.items():
        rows += [Curve(name, step, value) for step, value in points]
    return rows + _recovery(report)


def judged_rows(stage: str, evaluation: Evaluation) -> Iterator[Row]:
    """Perplexities, tasks, speed and size of a model; what it says is not kept."""
    for text in evaluation.perplexities:
        on: dict[str, Any] = {"split": text.split, "length": text.length, "samples": text.windows}
        yield Measured(stage, "perplexity", text.perplexity, task=text.text, **on)
    for task in evaluation.tasks:
        few: dict[str, Any] = {"samples": task.examples, "few_shot": task.few_shot}
        yield Measured(stage, task.metric, task.value, task.stderr, task=task.task, **few)
    for speed in evaluation.speeds:
        figures = {
            "prefill_tokens_per_second": speed.prefill_tokens_per_second,
            "decode_tokens_per_second": speed.decode_tokens_per_second,
            "peak_bytes": speed.peak_bytes,
        }
        shape: dict[str, Any] = {"length": speed.prompt, "batch_size": speed.batch_size}
        yield from (Measured(stage, name, value, **shape) for name, value in figures.items())
    if (size := evaluation.size) is not None:
        figures = {"parameters": size.parameters, "nonzero": size.nonzero, "bytes": size.bytes}
        yield from _figures(stage, figures | {"disk_bytes": size.disk})


def evaluation_runs(
    command: str, evaluations: Mapping[str, Evaluation], settings: Mapping[str, Any]
) -> list[Run]:
    """A run for each model that `evaluate` or `measure` has looked at."""
    return [
        replace(_looked_at(command, path, settings), rows=list(judged_rows(MODEL, evaluation)))
        for path, evaluation in evaluations.items()
    ]


def zeros_run(report: SparsityReport, folder: str | Path) -> Run:
    """The zeros of a saved model, matrix by matrix, with the plan beside it.

    Args:
        report: of the model.
        folder: where it lies.
    """
    plan = _plan(folder)
    totals = {"parameters": report.parameters, "nonzero": report.parameters - report.zeros}
    rows = [*matrix_rows(MODEL, report.matrices), *_figures(MODEL, totals)]
    rows += plan_rows([plan]) if plan is not None else []
    return replace(_looked_at("sparsity", report.path, {}, plan), rows=rows)


def comparison_runs(comparison: Comparison) -> list[Run]:
    """Two runs: the structure of each model, and what was measured of both."""
    settings, runs = comparison.settings, []
    for place, structure in enumerate((comparison.a, comparison.b)):
        totals = {name: getattr(structure, name) for name in ("parameters", "nonzero", "bytes")}
        rows: list[Row] = [*_figures(MODEL, totals)]
        for block in structure.blocks:
            counts = {"heads": block.heads, "kv_heads": block.kv_heads, "neurons": block.width}
            rows += [Measured(MODEL, n, float(v), block=block.index) for n, v in counts.items()]
        if comparison.measured is not None:
            judged = settings.get("text", settings.get("images"))
            on = {"task": judged, "split": settings.get("split")}
            on |= {"length": settings.get("length"), "samples": settings.get("windows")}
            measure = settings.get("measure", "perplexity")
            rows.append(Measured(MODEL, measure, comparison.measured[place], **on))
        runs.append(replace(_looked_at("compare", structure.path, settings), rows=rows))
    return runs


def agreement_run(found: Agreement, scorer: Mapping[str, Any], settings: Mapping[str, Any]) -> Run:
    """How well a scorer agrees with labels."""
    figures = {name: getattr(found, name) for name in ("auc", "spearman", "precision", "recall")}
    on: dict[str, Any] = {"task": str(settings["labelled"]), "samples": found.texts}
    rows = [Measured(MODEL, name, value, **on) for name, value in figures.items()]
    asked = {**settings, "scorer": dict(scorer), "cut": found.cut, "threshold": found.threshold}
    return Run("score", str(scorer["class"]), settings=asked, rows=rows)


# --- parts ---


def _looked_at(
    command: str, path: str, settings: Mapping[str, Any], plan: Plan | None = None
) -> Run:
    """A run without rows, of a model that lies somewhere; what pruned it, its plan says."""
    plan = plan or _plan(path)
    asked = {} if plan is None else asked_of([plan])
    place = str(Path(path).resolve()) if Path(path).is_dir() else None
    where: dict[str, Any] = {name: settings.get(name) for name in ("device", "dtype")}
    return Run(command, model_name(path), folder=place, settings=settings, **asked, **where)


def _plan(folder: str | Path) -> Plan | None:
    try:
        return Plan.load(folder)
    except (FileNotFoundError, ValueError):
        return None


def _stage_rows(stage: str, metrics: StageMetrics, on: Mapping[str, Any]) -> Iterator[Row]:
    for name in ("perplexity", "accuracy", "top5"):
        if (value := getattr(metrics, name)) is not None:
            yield Measured(stage, name, value, **on)
    totals = {name: getattr(metrics, name) for name in ("parameters", "nonzero", "bytes")}
    yield from _figures(stage, totals)
    if metrics.tokens_per_second is not None:
        yield Measured(stage, "forward_tokens_per_second", metrics.tokens_per_second)


def _figures(stage: str, figures: Mapping[str, float | None]) -> Iterator[Row]:
    return (Measured(stage, n, float(v)) for n, v in figures.items() if v is not None)


def _recovery(report: Report) -> list[Row]:
    if "recovered" not in report.stages:
        return []
    by_stage = {name: stage.perplexity for name, stage in report.stages.items()}
    stages = {name: by_stage.get(name) for name in ("dense", "pruned", "recovered")}
    loss = report.curves.get("train_loss", [])
    return [
        Recovery(
            report.configuration.get("model", {}).get("adapter"),
            steps=max((step for points in report.curves.values() for step, _ in points), default=0),
            **stages,
            train_loss=loss[-1][1] if loss else None,
            seconds=report.seconds.get("training"),
            revived=report.settings.get("revived_zeros"),
        )
    ]
