"""`lightning-prune analyze db`: a query as a table, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
import torch

from lightning_prune.analysis.store.results import Results
from lightning_prune.cli import main
from lightning_prune.commands.analyze import db
from tests.analysis.store.made import pruned

pytest.importorskip("duckdb")


@pytest.fixture(autouse=True)
def runs(empty_folder: None) -> None:
    Results("r.duckdb").add([pruned(), pruned("SparseGPT", 15.0)])


def test_without_a_query_a_line_for_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    main(["analyze", "db", "r.duckdb"])
    lines = capsys.readouterr().out.splitlines()
    (wanda,) = (line for line in lines if "Wanda" in line)
    (other,) = (line for line in lines if "SparseGPT" in line)
    assert "20" in wanda
    assert "15" in other


def test_csv_has_all_rows_and_all_digits(capsys: pytest.CaptureFixture[str]) -> None:
    """Also more than a table shows."""
    main(
        [
            "analyze",
            "db",
            "r.duckdb",
            "SELECT i, i / 3 AS third FROM range(1500) t(i)",
            "--format=csv",
        ]
    )
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["i", "third"]
    assert [(int(i), float(third)) for i, third in rows[1:]] == [(i, i / 3) for i in range(1500)]


def test_a_table_ends_somewhere_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "MOST_ROWS", 3)
    main(["analyze", "db", "r.duckdb", "SELECT * FROM range(10)"])
    said = capsys.readouterr().out
    assert "The first 3 rows; --format csv writes all." in said
    assert [line.strip() for line in said.splitlines() if line.strip().isdigit()] == ["0", "1", "2"]


def test_nothing_found_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    main(["analyze", "db", "r.duckdb", "SELECT run, model FROM runs WHERE run > 9"])
    said = capsys.readouterr().out
    assert "model" in said
    assert "No rows." in said


def test_dumps_become_runs(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(torch.eye(4), "layer2-down_proj-wanda-0.5.pt")
    main(["analyze", "dumps", ".", "--db", "r.duckdb"])
    assert "r.duckdb  run 3" in capsys.readouterr().out
    found = Results("r.duckdb").query("SELECT sparsity FROM wanda_0_5_down_proj WHERE run = 3")
    assert found.rows == [(0.75,)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["db", "nothing.duckdb"], "no store at 'nothing.duckdb'"),
        (["db", "r.duckdb", "SELECT * FROM run"], 'Did you mean "runs"?'),
        (["db", "r.duckdb", ""], "the query is empty; give one, such as SHOW TABLES"),
        (["db", "r.duckdb", "-- SELECT 1"], "the query is empty"),
        (["db", "r.duckdb", "DELETE FROM runs"], "attached in read-only mode"),
        (["db", "r.duckdb", "COPY runs TO 'x.csv'", "--format=csv"], "Cannot access file"),
        (["db", "r.duckdb", "SELECT 1", "--format=json"], "format=json is not allowed. Allowed: t"),
        (["dumps", ".", "--db", "r.duckdb"], "no dumps in '.'"),
        (["report", "r.duckdb", "--runs", "7"], "r.duckdb has no run 7; it has 1 to 2"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, refused: Callable[..., str]
) -> None:
    assert message in refused(*arguments)
