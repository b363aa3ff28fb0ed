"""Queries: what they find, and what they may not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_prune.analysis.store.results import Results
from tests.analysis.store.made import pruned

duckdb = pytest.importorskip("duckdb")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results.duckdb", wait=0.5)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM runs",
        "INSERT INTO curves VALUES (1, 'a', 1, 1)",
        "DROP TABLE runs",
        "SELECT 1; UPDATE runs SET model = 'x'",
        "CREATE TABLE mine (a INTEGER)",
        "COPY runs TO '{out}'",
        "EXPORT DATABASE '{out}'",
        "ATTACH '{out}' AS other",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "INSTALL httpfs",
        "LOAD '{secret}'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "PRAGMA temp_directory = '{out}'",
    ],
)
def test_a_query_can_neither_write_nor_read_other_files(
    results: Results, tmp_path: Path, query: str
) -> None:
    """Whatever it is."""
    results.add([pruned()])
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text("a\n1\n")
    before = results.path.read_bytes()
    with pytest.raises(ValueError, match="the query cannot be answered: "):
        results.query(query.format(out=out, secret=secret, folder=tmp_path))
    assert results.path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.duckdb", "secret.csv"]


def test_a_wrong_query_is_one_line_with_what_was_meant(results: Results) -> None:
    results.prepare()
    with pytest.raises(
        ValueError, match='Table with name run does not exist! Did you mean "runs"'
    ) as e:
        results.query("SELECT * FROM run")
    assert "\n" not in str(e.value)


def test_so_many_rows_are_fetched_and_no_more(results: Results) -> None:
    results.prepare()
    answer = results.query("SELECT * FROM range(5) ORDER BY ALL", most=3)
    assert (answer.columns, list(answer.rows), answer.more) == (["range"], [(0,), (1,), (2,)], True)
    assert not results.query("SELECT * FROM range(3)", most=3).more
