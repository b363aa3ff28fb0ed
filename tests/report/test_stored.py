"""Runs of the store side by side: what tells lines apart, and what is left of a model."""

from __future__ import annotations

from typing import Any

from lightning_prune.analysis.store.compared import StoredRun
from lightning_prune.report.stored_tables import circuits_table, similarities_table


def stored(**lines: Any) -> StoredRun:
    return StoredRun(1, "mine", {}, **lines)


def test_draws_of_random_parts_are_told_apart() -> None:
    """Of lists that were drawn once, nothing is said."""
    rates = {"rate": 0.5, "rate_low": 0.4, "rate_high": 0.6, "score": 0.5}
    drawn = [("circuit", 1), ("random", 1), ("random", 2)]
    lines = [{"name": n, "draw": d, "count": 5, "perplexity": 2.0, **rates} for n, d in drawn]
    rows = circuits_table([stored(circuits=lines)]).rows
    assert [row[1] for row in rows] == ["circuit", "random, draw 1", "random, draw 2"]


def test_of_how_many_members_a_similarity_is_stands_beside_it() -> None:
    """One of all says nothing."""
    line = {"a": "x", "b": "y", "measure": "jaccard", "what": "circuits", "value": 0.1}
    line |= {"by_chance": None, "name": None, "block": None}
    lines = [line | {"count": 1000}, line | {"count": None}]
    rows = similarities_table([stored(similarities=lines)]).rows
    assert [row[2] for row in rows] == ["jaccard of circuits, first 1,000", "jaccard of circuits"]


def test_matrices_of_which_nothing_is_left_are_gone() -> None:
    """They count in the share of the weights that went."""
    whole = {"rows": 4, "inputs": 2, "zeros": 0, "weights_before": 8}
    run = stored(matrices=[whole, whole | {"inputs": 0}])
    assert run.gone(run.matrices) == 0.5
