"""Models and plans as rows of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from lightning_prune.analysis.statistics import Distribution, sampled
from lightning_prune.analysis.store.rows import Held, Matrix, PlanStep, Row, Score
from lightning_prune.analysis.zeros import MatrixZeros
from lightning_prune.plan import Plan
from lightning_prune.plan.numbering import numbered_before

__all__ = ["asked_of", "gone_rows", "matrix_rows", "plan_rows", "score_rows"]

UNITS = {"group": "groups", "neuron": "neurons", "block": "blocks"}
"""Kinds of units, and the columns of their counts."""


def matrix_rows(
    stage: str, matrices: Iterable[MatrixZeros], gone: Set[int] = frozenset()
) -> list[Row]:
    """Shapes, zeros, norms and patterns of a model's matrices at a stage.

    Args:
        stage: the stage.
        matrices: what was found in them.
        gone: blocks that were taken out; the others are numbered and named as before.
    """
    rows: list[Row] = []
    for m in matrices:
        block = numbered_before(m.block, gone)
        name = m.name.replace(f".{m.block}.", f".{block}.", 1)
        rows.append(
            Matrix(stage, name, block, m.kind, *m.shape, m.zeros, m.row_min, m.row_max, m.norm)
        )
        rows += [Held(stage, name, pattern, held) for pattern, held in m.patterns.items()]
    return rows


def gone_rows(stage: str, dense: Iterable[Row], gone: Set[int]) -> list[Row]:
    """The matrices of blocks that were taken out: nothing is left of them.

    Args:
        stage: the stage.
        dense: rows of the dense model.
        gone: the blocks.
    """
    nothing: dict[str, Any] = dict.fromkeys(("rows", "inputs", "zeros"), 0)
    nothing |= dict.fromkeys(("row_min", "row_max", "norm"), 0.0)
    return [
        replace(row, stage=stage, **nothing)
        for row in dense
        if isinstance(row, Matrix) and row.stage == "dense" and row.block in gone
    ]


def plan_rows(plans: Sequence[Plan]) -> list[Row]:
    """The steps of plans in order; of several that one plan joins, the last has the counts."""
    rows: list[Row] = []
    for plan in plans:
        *before, last = plan.steps
        rows += [PlanStep(len(rows) + i, **_said(step)) for i, step in enumerate(before)]
        decided: dict[str, Any] = {"fingerprint": plan.fingerprint(), **_counts(plan)}
        rows.append(PlanStep(len(rows), **_said(last), **decided))
    return rows


def score_rows(plan: Plan) -> list[Row]:
    """How the scores that a plan keeps are spread; of very many, a sample of them."""
    rows: list[Row] = []
    for kind, name in plan.score_keys:
        score = plan.scores(kind, name)
        if not score.numel():
            continue
        spread = Distribution.of(sampled([score]), score.numel())
        quantiles = {f"q{100 * q:02.0f}": value for q, value in spread.quantiles.items()}
        ends = {"mean": spread.mean, "std": spread.std, "min": spread.min, "max": spread.max}
        rows.append(Score(kind=kind, name=name, count=spread.count, **ends, **quantiles))
    return rows


def asked_of(plans: Sequence[Plan]) -> dict[str, Any]:
    """Which methods made plans, and what was asked of the last one, as `Run` has it."""
    steps = [step for plan in plans for step in plan.steps]
    names = [str(step["method"]) for step in steps if step.get("method")]
    if not names:
        return {}
    arguments = steps[-1].get("arguments", {})
    pattern = arguments.get("pattern")
    return {
        "method": "+".join(names),
        "call": "; ".join(str(step.get("call") or step.get("method")) for step in steps),
        "pattern": None if pattern is None else str(pattern),
        "sparsity": _number(arguments.get("sparsity")) if pattern is None else None,
        "ratio": _number(arguments.get("ratio")),
    }


def _said(step: Mapping[str, Any]) -> dict[str, Any]:
    """Where a step comes from."""
    identity = step.get("identity") or {}
    return {
        "method": str(step.get("method", "")),
        "call": str(step.get("call", "")),
        "model": step.get("model"),
        "calibration": identity.get("calibration"),
    }


def _counts(plan: Plan) -> dict[str, int]:
    """What a plan decides on, and what it removes of that."""
    names = plan.mask_names
    masked = sum(plan.mask_shape(name).numel() for name in names)
    counts = {"masked": masked, "zeros": masked - sum(int(plan.mask(n).sum()) for n in names)}
    for kind, column in UNITS.items():
        kept = plan.blocks(kind).values()
        counts[column] = sum(units.total for units in kept)
        counts[f"{column}_gone"] = sum(units.removed for units in kept)
    return counts


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
