"""Two sets of scores compared: do they say the same, and would the same units stay?

Scores are those that methods made with `keep_scores=True` leave in their plans: one number a unit
("neuron", "group", by block) or one a weight ("weight", by name). A method that puts its scores
together from several also leaves those apart, under kinds such as "neuron/Feature".

Axes: U units of one block, or weights of one matrix; N numbers of one or of several keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from lightning_prune.analysis.keys import ALL, in_order
from lightning_prune.analysis.statistics import (
    SAMPLE,
    Agreement,
    Distribution,
    Overlap,
    average_ranks,
    sampled,
)
from lightning_prune.plan import Plan

__all__ = [
    "ScorePair",
    "ScoreReport",
    "ScoreTable",
    "compare_scores",
]

POINTS = 4000
"""How many of them are drawn in a picture."""


@dataclass(frozen=True)
class ScoreTable:
    """The scores of one kind in one plan.

    Attributes:
        label: what they are called.
        kind: "neuron", "group" or "weight", with a component behind a slash: "neuron/Feature".
        values: by block index or weight name.
        keeps: by the same key, True = kept; where scores are a component, as many as the plan
            keeps, those with the highest scores.
    """

    label: str
    kind: str
    values: dict[str, torch.Tensor]
    keeps: Callable[[str], torch.Tensor | None] = field(repr=False)

    @property
    def unit(self) -> str:
        """What is scored: the kind without its component."""
        return self.kind.partition("/")[0]


@dataclass(frozen=True)
class ScorePair:
    """Two tables of scores compared.

    Attributes:
        a, b: the tables.
        agreements: by key, and of all together.
        points: ranks of some of the scores in A and in B, as fractions, (2, N); for a picture.
    """

    a: ScoreTable
    b: ScoreTable
    agreements: dict[str, Agreement]
    points: torch.Tensor = field(repr=False)


@dataclass(frozen=True)
class ScoreReport:
    """All that is known of the scores of one plan or two.

    Attributes:
        plans: where they were read from, A first.
        pairs: what was compared.
        distributions: of each table of scores, by key, and of all together.
    """

    plans: list[str]
    pairs: list[ScorePair]
    distributions: list[tuple[ScoreTable, dict[str, Distribution]]]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can say it; what is undefined is null."""
        return {
            "plans": self.plans,
            "sample": SAMPLE,
            "pairs": [
                {
                    "unit": pair.a.unit,
                    "a": {"scores": pair.a.label, "kind": pair.a.kind},
                    "b": {"scores": pair.b.label, "kind": pair.b.kind},
                    "agreement": {key: _said(value) for key, value in pair.agreements.items()},
                }
                for pair in self.pairs
            ],
            "distributions": [
                {
                    "scores": table.label,
                    "kind": table.kind,
                    "of": {key: vars(value) for key, value in distributions.items()},
                }
                for table, distributions in self.distributions
            ],
        }


def compare_scores(path_a: str | Path, path_b: str | Path | None = None) -> ScoreReport:
    """Compare the scores of two plans kind by kind, or those within one plan with each other.

    Within one plan every two of the scores of the same units are compared: the ones that the
    decision was made from, and each component that these were put together from.

    Of more than four million numbers a random sample is looked at, always the same one.

    Args:
        path_a: a plan's folder, or its plan.json.
        path_b: another one's.

    Raises:
        FileNotFoundError: there is no plan.
        ValueError: a plan has no scores, the two have none of the same kind and place, or scores
            of one place differ in shape.
    """
    paths = [path_a] if path_b is None else [path_a, path_b]
    names = [""] if path_b is None else ["A ", "B "]
    tables = [_tables(path, name) for path, name in zip(paths, names, strict=True)]
    if path_b is None:
        couples = [(a, b) for a, b in combinations(tables[0], 2) if a.unit == b.unit]
    else:
        couples = [(a, b) for a in tables[0] for b in tables[1] if a.kind == b.kind]
        if not couples:
            kinds = [", ".join(table.kind for table in plan_tables) for plan_tables in tables]
            raise ValueError(
                f"the plans have no scores of the same kind: {path_a} has {kinds[0]}, {path_b} "
                f"has {kinds[1]}. Compare plans that decide on the same units."
            )
    shared = [_shared_keys(a, b) for a, b in couples]  # all are checked before the long part
    return ScoreReport(
        [str(path) for path in paths],
        [_pair(a, b, keys) for (a, b), keys in zip(couples, shared, strict=True)],
        [(table, _distributions(table)) for plan_tables in tables for table in plan_tables],
    )


# --- tables ---


def _tables(path: str | Path, name: str) -> list[ScoreTable]:
    """The scores of a plan, kind by kind."""
    plan = Plan.load(path)
    if not plan.has_scores:
        raise ValueError(
            f"the plan in {path} keeps no scores. Make the method with keep_scores=True (on the "
            "command line --trainer.callbacks.keep_scores=true), and prune again."
        )
    label = name + plan.steps[-1].get("method", "scores")
    values: dict[str, dict[str, torch.Tensor]] = {}
    for kind, key in plan.score_keys:
        values.setdefault(kind, {})[key] = plan.scores(kind, key)
    return [_table(plan, kind, scores, label) for kind, scores in values.items()]


def _table(plan: Plan, kind: str, values: dict[str, torch.Tensor], label: str) -> ScoreTable:
    unit, _, component = kind.partition("/")

    def keeps(key: str) -> torch.Tensor | None:
        kept_U = _decided(plan, unit, key)
        score_U = values[key].flatten()
        if kept_U is None or kept_U.numel() != score_U.numel():  # decided on before, or later
            return None
        if not component:
            return kept_U
        order_U = score_U.argsort(descending=True, stable=True)
        return torch.zeros_like(kept_U).index_fill_(0, order_U[: int(kept_U.sum())], True)

    ordered = {name: values[name] for name in in_order(values)}
    return ScoreTable(f"{label} {component}".strip(), kind, ordered, keeps)


def _decided(plan: Plan, unit: str, key: str) -> torch.Tensor | None:
    """What a plan keeps, flattened; None where it decides nothing."""
    if unit == "weight":
        return plan.mask(key).flatten() if key in plan.mask_names else None
    kept = plan.blocks(unit).get(int(key))
    if kept is None:
        return None
    return torch.zeros(kept.total, dtype=torch.bool).index_fill_(0, kept.index_U, True)


def _shared_keys(a: ScoreTable, b: ScoreTable) -> list[str]:
    """Blocks, or weights, that both have scores of.

    Raises:
        ValueError: there are none, or those of one differ in shape.
    """
    keys = [key for key in a.values if key in b.values]
    if not keys:
        raise ValueError(
            f"{a.label} and {b.label} have {a.kind} scores, but none of the same block: the one "
            f"of {', '.join(list(a.values)[:4])}, the other of {', '.join(list(b.values)[:4])}"
        )
    for key in keys:
        shapes = tuple(a.values[key].shape), tuple(b.values[key].shape)
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"the {a.kind} scores of {key} have shape {shapes[0]} in {a.label} and {shapes[1]} "
                f"in {b.label}. Scores can be compared if they were made for the same model."
            )
    return keys


# --- comparing ---


def _pair(a: ScoreTable, b: ScoreTable, keys: Sequence[str]) -> ScorePair:
    overlaps: dict[str, Overlap] = {}
    for key in keys:
        keep_a_N, keep_b_N = a.keeps(key), b.keeps(key)
        if keep_a_N is not None and keep_b_N is not None:
            overlaps[key] = Overlap.of(keep_a_N, keep_b_N)
    agreements = {
        key: Agreement.of(
            _values(a, [key]), _values(b, [key]), a.values[key].numel(), overlaps.get(key)
        )
        for key in keys
    }
    a_N, b_N = _values(a, keys), _values(b, keys)
    whole = Overlap.sum(list(overlaps.values())) if len(overlaps) == len(keys) else None
    agreements[ALL] = Agreement.of(a_N, b_N, _count(a, keys), whole)
    ranks = torch.stack([average_ranks(a_N), average_ranks(b_N)])
    some = torch.linspace(0, len(a_N) - 1, min(POINTS, len(a_N))).long()
    return ScorePair(a, b, agreements, ranks[:, some] / len(a_N))


def _distributions(table: ScoreTable) -> dict[str, Distribution]:
    every = list(table.values)
    parts = {key: [key] for key in every} | {ALL: every}
    return {
        name: Distribution.of(_values(table, keys), _count(table, keys))
        for name, keys in parts.items()
    }


def _count(table: ScoreTable, keys: Sequence[str]) -> int:
    return sum(table.values[key].numel() for key in keys)


def _values(table: ScoreTable, keys: Sequence[str]) -> torch.Tensor:
    """The scores of some keys, or a sample: the same places in every table."""
    return sampled([table.values[key] for key in keys])


def _said(agreement: Agreement) -> dict[str, Any]:
    values = vars(agreement) | {"overlap": None}
    if (overlap := agreement.overlap) is not None:
        names = ("jaccard", "jaccard_by_chance", "removed_jaccard")
        values["overlap"] = vars(overlap) | {name: getattr(overlap, name) for name in names}
    return _without_nan(values)


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_nan(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and math.isnan(value)
        else value
        for name, value in values.items()
    }
