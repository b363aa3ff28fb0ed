"""The queries of docs/analysis.md: each is answered, and says something."""

from __future__ import annotations

import re

import pytest

from lightning_prune.analysis.store.results import Results
from lightning_prune.analysis.store.rows import Circuit, PlanStep, Recovery, Run, Score
from tests.analysis.store.made import pruned
from tests.pages import ROOT

pytest.importorskip("duckdb")
PAGE = ROOT / "docs" / "analysis.md"
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE.read_text("utf-8"), re.S) if PAGE.is_file() else []
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="no docs beside the tests")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A run of every kind that the page speaks of."""
    results = Results(tmp_path_factory.mktemp("store") / "results.duckdb")
    plan = PlanStep(0, "FLAP", "FLAP()", fingerprint="abc", groups=4, groups_gone=1, masked=0)
    rates = {"kind": "neuron", "count": 5, "perplexity": 11.0, "score": 0.5, "unique_tokens": 0.7}
    rows = [
        plan,
        Recovery("LoRA(r=2)", 5, 10.0, 30.0, 15.0, 2.5, 1.0, 0),
        Score("weight", "w", 128, *[float(i) for i in range(11)]),
        Circuit(name="circuit", rate=0.1, rate_low=0.05, rate_high=0.2, **rates),
        Circuit(name="random", rate=0.6, rate_low=0.5, rate_high=0.7, **rates),
    ]
    made = Run("fit", "tiny", method="FLAP", ratio=0.2, rows=rows)
    results.add([pruned(), pruned("SparseGPT", 15.0), pruned(pattern="2:4"), made, made])
    return results


def test_there_are_ten() -> None:
    assert len(QUERIES) == 10


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: " ".join(q.split())[:40])
def test_a_query_says_something(results: Results, query: str) -> None:
    """Of a store that has what it asks for."""
    answer = results.query(query)
    assert answer.rows
    assert any(value is not None for value in answer.rows[0])


def test_every_table_view_and_column_is_on_the_page(results: Results) -> None:
    """What the store has is explained."""
    text = PAGE.read_text("utf-8")
    for (name,) in results.query("SHOW TABLES").rows:
        if not re.match(r"(wanda|sparsegpt|flap)_|lightning_prune_store", name):
            assert f"| `{name}` |" in text
    tables = (
        "runs",
        "matrices",
        "patterns",
        "evaluations",
        "recoveries",
        "similarities",
        "circuits",
    )
    for table in tables:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{table}` |"))
        for column, *_ in results.query(f"DESCRIBE {table}").rows:
            assert column == "run" or f"`{column}`" in row, f"{table}.{column}"
