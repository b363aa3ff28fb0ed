"""What studies and comparisons find, as the store keeps it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lightning_prune.analysis.circuits import CircuitReport
from lightning_prune.analysis.keys import ALL
from lightning_prune.analysis.scores import ScoreReport
from lightning_prune.analysis.similarity import SimilarityReport
from lightning_prune.analysis.store.rows import Circuit, Evaluation, Member, Row, Run, Similarity
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.report.circuit import CircuitResult
from lightning_prune.report.grid import Cell, Grid
from lightning_prune.report.importance import Importance
from lightning_prune.report.names import model_name
from lightning_prune.report.search import Spread

__all__ = [
    "circuit_run",
    "grid_runs",
    "importance_run",
    "overlaps_run",
    "score_similarities_run",
    "similarities_run",
    "spread_run",
]


def grid_runs(grid: Grid) -> list[Run]:
    """A run for each cell of `sweep` or `search`, with what the dense model reaches in each."""
    texts = grid.settings.get("data", {})
    on = {
        "task": texts.get("validation"),
        "split": "validation",
        "length": grid.settings.get("length"),
        "samples": grid.settings.get("windows"),
    }
    runs, measure = [], grid.measure
    for cell in grid.cells:
        rows: list[Row] = [Evaluation("dense", measure.name, grid.dense, **on)]
        if not cell.error:
            rows.append(Evaluation("pruned", measure.name, measure.of(cell), **on))
            rows.append(Evaluation("pruned", "sparsity", cell.sparsity))
        run = _made(grid.name, grid.model, grid.settings)
        asked = {"method": cell.method.partition("(")[0], "call": cell.method, **_target(cell)}
        runs.append(
            replace(run, **asked, seconds=cell.seconds, error=cell.error or None, rows=rows)
        )
    return runs


def spread_run(spread: Spread) -> Run:
    """What a search for shares has tried and pruned, and the shares of the best."""
    rows: list[Row] = [Evaluation("dense", "perplexity", spread.dense)]
    for tried in spread.tried:
        on: dict[str, Any] = {"task": tried.name, "samples": tried.windows}
        rows.append(Evaluation("stitched", "divergence", tried.divergence, **on))
    for trial in spread.results:
        rows.append(Evaluation("pruned", "perplexity", trial.evaluation, task=trial.name))
        rows.append(Evaluation("pruned", "held_out_perplexity", trial.perplexity, task=trial.name))
    for slot, share in zip(spread.slots, spread.best.fractions, strict=True):
        rows.append(Evaluation("pruned", "share", share, task=slot))
    asked: dict[str, Any] = {"method": spread.method.partition("(")[0], "call": spread.method}
    return replace(_made("search", spread.model, spread.settings), **asked, rows=rows)


def importance_run(importance: Importance) -> Run:
    """One number a block."""
    rows = [
        Evaluation("dense", importance.measure, value, task=importance.part, block=block)
        for block, value in importance.values.items()
    ]
    return replace(_made("importance", importance.model, importance.settings), rows=rows)


def circuit_run(result: CircuitResult, circuit: CircuitUnits) -> Run:
    """What the model is like without parts of a circuit and of its controls, and its members."""
    rows: list[Row] = [
        Circuit(
            name=row.name,
            kind=circuit.kind,
            count=row.count,
            perplexity=row.perplexity,
            rate=row.rate.value,
            rate_low=row.rate.low,
            rate_high=row.rate.high,
            score=row.score.value,
            unique_tokens=row.unique.value,
            draw=row.draw,
        )
        for row in result.rows
    ]
    run = _made("circuit", result.model, result.settings)
    return replace(run, rows=[*rows, *_members(circuit)])


def overlaps_run(report: CircuitReport) -> Run:
    """What circuits share, over all and by block, and how the ranks of attributions agree."""
    rows: list[Row] = []
    what = f"{report.what}s"
    for shared in report.members:
        for pair in shared.pairs:
            chance = pair.jaccard_by_chance
            found = (pair.a, pair.b, what, "jaccard", pair.jaccard)
            rows.append(Similarity(*found, by_chance=chance, kind=report.kind, count=shared.count))
        if len(report.names) == 2:
            a, b = report.names
            for name, block in shared.blocks.items():
                place = {"block": int(name)} if name.isdigit() else {"name": name}
                found = (a, b, what, "shared", float(block.shared))
                rows.append(Similarity(*found, kind=report.kind, count=shared.count, **place))
    for (a, b), value in report.correlations.items():
        rows.append(Similarity(a, b, what, "spearman", value, kind=report.kind))
    return Run("analyze circuits", None, rows=rows)


def score_similarities_run(report: ScoreReport) -> Run:
    """How alike scores are, of every matrix or block and over all."""
    rows: list[Row] = []
    for pair in report.pairs:
        for key, agreement in pair.agreements.items():
            place: dict[str, Any] = {"kind": pair.a.kind, "count": agreement.count}
            if key != ALL:
                place |= {"block": int(key)} if key.isdigit() else {"name": key}
            names = (pair.a.label, pair.b.label, "scores")
            for measure in ("pearson", "spearman", "cosine"):
                rows.append(Similarity(*names, measure, getattr(agreement, measure), **place))
            if (kept := agreement.overlap) is not None:
                chance = kept.jaccard_by_chance
                rows.append(Similarity(*names, "jaccard", kept.jaccard, by_chance=chance, **place))
    return Run("analyze scores", None, settings={"plans": report.plans}, rows=rows)


def similarities_run(report: SimilarityReport) -> Run:
    """How alike masks are: over all, by block, by projection and by matrix."""
    rows: list[Row] = []
    for found in report.similarities:
        place: dict[str, Any] = {"kind": found.level}
        if found.level == "block":
            place["block"] = int(found.place)
        elif found.level != "all":
            place["name"] = found.place
        pair = (found.a, found.b, "masks")
        for measure in ("jaccard", "cosine", "hamming"):
            chance = found.jaccard_by_chance if measure == "jaccard" else None
            rows.append(
                Similarity(*pair, measure, getattr(found, measure), by_chance=chance, **place)
            )
            mean, deviation = found.means.get(measure), found.deviations.get(measure)
            rows.append(Similarity(*pair, f"{measure}_of_features", mean, deviation, **place))
    settings = {"compared": dict(report.names), "axis": report.axis}
    return Run("analyze similarity", None, settings=settings, rows=rows)


# --- parts ---


def _made(command: str, model: str, settings: Mapping[str, Any]) -> Run:
    where: dict[str, Any] = {name: settings.get(name) for name in ("device", "dtype")}
    return Run(command, model_name(model), settings=settings, **where)


def _target(cell: Cell) -> dict[str, Any]:
    """What a cell was asked for, from how it is shown: "50%", "2:4" or "ratio=0.3"."""
    name, _, value = cell.target.rpartition("=")
    if re.fullmatch(r"\d+:\d+", value) and name in ("", "pattern"):
        return {"pattern": value}
    if value.endswith("%") and not name:
        return {"sparsity": round(float(value[:-1]) / 100, 12)}
    return {name: float(value)} if name in ("sparsity", "ratio") else {}


def _members(circuit: CircuitUnits) -> Iterator[Row]:
    scores: list[float | None] = [*circuit.scores] or [None] * len(circuit)
    for rank, ((name, *place), score) in enumerate(zip(circuit.members, scores, strict=True)):
        row, column = place if len(place) == 2 else (*place, None)
        yield Member(rank, circuit.kind, name, row, column, score)
