"""Runs of a store side by side: tables for the terminal and for Markdown, a page, JSON and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

from lightning_prune.analysis.store.compared import StoredRun
from lightning_prune.report.files import Document
from lightning_prune.report.numbers import duration_text, moment_text, perplexity_text, times
from lightning_prune.report.page import page
from lightning_prune.report.plots import document, figures
from lightning_prune.report.stored_plots import block_plots, perplexity_plots
from lightning_prune.report.stored_tables import (
    circuits_table,
    patterns_table,
    recoveries_table,
    share_figure,
    similarities_table,
    sizes_table,
    tasks_table,
)
from lightning_prune.report.tables import Column, Figure, Row, Table, as_html

__all__ = ["stored_document"]


def stored_document(store: str, runs: Sequence[StoredRun]) -> Document:
    """What is printed and written of runs that are compared.

    Args:
        store: the file that they are from.
        runs: side by side, in this order.
    """
    title = _title(runs)
    tables = [
        _overview(runs),
        _gone(runs),
        patterns_table(runs),
        tasks_table(runs),
        sizes_table(runs),
        recoveries_table(runs),
        circuits_table(runs),
        similarities_table(runs),
    ]
    shown = [table for table in tables if table.rows]
    plots = [*perplexity_plots(runs), *block_plots(runs)]
    failed = [f"{run.label} failed: {run.facts['error']}" for run in runs if run.facts["error"]]
    overview, *others = shown
    sections = [
        ("", as_html(_untitled(overview)) + "".join(f"<p>{escape(w)}</p>" for w in failed)),
        ("Pictures", figures(plots)),
        *((table.title, as_html(_untitled(table))) for table in others),
        ("Where they come from", as_html(_sources(runs))),
    ]
    kept = [(heading, body) for heading, body in sections if body]
    return Document(
        "comparison",
        {"store": store, "runs": [run.to_dict() for run in runs]},
        printed=[*shown, *failed],
        written=[f"# {title}", *shown, *failed],
        rows=_untitled(overview),
        picture=document("comparison", title, [store], plots) if plots else "",
        texts={"comparison.html": page(title, "comparative report", kept)},
    )


# --- tables ---


def _overview(runs: Sequence[StoredRun]) -> Table:
    """A row for each run: what it has lost, and what that has cost."""
    best: dict[str, float] = {}
    for run in runs:
        if (value := _last(run)) is not None:
            best[run.facts["model"]] = min(value, best.get(run.facts["model"], value))
    recovered = any(run.value("perplexity", "recovered") is not None for run in runs)
    rows: list[Row] = []
    for run in runs:
        dense = run.value("perplexity", "dense")
        made = "model" if run.stage == "model" else "pruned"
        stages = (made, "recovered") if recovered else (made,)
        seconds = run.facts["seconds"]
        rows.append(
            (
                run.label,
                run.facts["model"] or "",
                Figure(run.number, str(run.number)),
                share_figure(_run_gone(run)),
                Figure(dense, perplexity_text(dense)),
                *(_perplexity(run, s, dense, best.get(run.facts["model"])) for s in stages),
                Figure(seconds, "-" if seconds is None else duration_text(seconds)),
            )
        )
    header: list[str | Column] = ["what", "model", "run", "zero or cut", "dense perplexity"]
    header += [Column("perplexity", "x dense")]
    header += [Column("recovered", "x dense")] if recovered else []
    note = _judged_on(runs)
    return Table("Runs", [*header, "time"], rows, note, words=2)


def _gone(runs: Sequence[StoredRun]) -> Table:
    """By kind of matrix, what each run has taken away."""
    looked = [run for run in runs if run.matrices]
    kinds = dict.fromkeys(m["kind"] for run in looked for m in run.matrices)
    rows = [
        (
            kind,
            *(
                share_figure(run.gone([m for m in run.matrices if m["kind"] == kind]))
                for run in looked
            ),
        )
        for kind in kinds
    ]
    header = ("matrix", *(run.label for run in looked))
    title = "Zero or cut, by kind of matrix"
    return Table(title, header, rows, compared=len(looked), of="run")


def _sources(runs: Sequence[StoredRun]) -> Table:
    rows: list[Row] = [
        (
            run.label,
            str(run.facts["call"] or ""),
            run.facts["command"],
            moment_text(run.facts["created"].isoformat()),
            " ".join(filter(None, (run.facts["device"], run.facts["dtype"]))),
            run.facts["version"],
            run.facts["folder"] or "",
        )
        for run in runs
    ]
    header = ("run", "call", "command", "when (UTC)", "on", "version", "folder")
    return Table("", header, rows, words=len(header))


# --- parts ---


def _title(runs: Sequence[StoredRun]) -> str:
    models = dict.fromkeys(str(run.facts["model"]) for run in runs if run.facts["model"])
    of = f" of {next(iter(models))}" if len(models) == 1 else f", {len(models)} models"
    return f"{len(runs)} run{'s' * (len(runs) != 1)}{of if models else ''}"


def _judged_on(runs: Sequence[StoredRun]) -> str:
    """What perplexity is of, where that is the same everywhere; else that it is not."""
    texts = {
        (line["task"], line["split"], line["length"], line["samples"])
        for run in runs
        for line in run.values("perplexity", run.stage)[:1]
    }
    if len(texts) > 1:
        return "Perplexities are of different texts or windows; the table `evaluations` says which."
    words = [
        f"{samples} windows of {length} tokens of {split or ''} {task or ''}".strip()
        for task, split, length, samples in texts
        if length
    ]
    return f"Perplexity is of {words[0]}. Bold: the lowest of a model." if words else ""


def _last(run: StoredRun) -> float | None:
    return run.value("perplexity", run.stage)


def _run_gone(run: StoredRun) -> float | None:
    """Of the weights of its matrices; of a cell of a grid, what the grid says."""
    return run.gone(run.matrices) if run.matrices else run.value("sparsity", "pruned")


def _perplexity(run: StoredRun, stage: str, dense: float | None, best: float | None) -> Figure:
    value = run.value("perplexity", stage)
    is_best = value is not None and value == best
    return Figure(value, perplexity_text(value), times(value, dense), best=is_best)


def _untitled(table: Table) -> Table:
    return replace(table, title="")
