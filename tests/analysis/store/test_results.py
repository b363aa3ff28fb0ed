"""The store: what is added is found, whole or not at all, by one process after the other."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path

import pytest

from lightning_prune.analysis.store.connection import MARK
from lightning_prune.analysis.store.results import Results
from lightning_prune.analysis.store.rows import (
    Circuit,
    Curve,
    Evaluation,
    Matrix,
    Member,
    PlanStep,
    Recovery,
    Row,
    Run,
    Similarity,
)
from lightning_prune.analysis.store.schema import VIEWS
from tests.analysis.store.made import matrices, pruned

duckdb = pytest.importorskip("duckdb")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results.duckdb", wait=0.5)


def test_every_row_comes_back_as_it_was(results: Results) -> None:
    """Of every table; None stays NULL, and numbers may be infinite."""
    rows: list[Row] = [
        *pruned().rows,
        PlanStep(0, "Wanda", "Wanda()", masked=10, zeros=5),
        Evaluation("pruned", "perplexity", math.inf, block=3),
        Recovery("LoRA()", 5, 1.0, 3.0, 2.0, None, 0.5, 0),
        Curve("train_loss", 1, 2.5),
        Similarity("a", "b", "masks", "jaccard", 0.5, by_chance=0.25),
        Circuit("circuit", "neuron", 3, 2.0, 0.5, 0.4, 0.6, 0.5, 0.7),
        Member(0, "weight", "w", 1, 2, -0.5),
    ]
    assert results.add([Run("mine", "tiny", rows=rows)]) == [1]
    assert {type(row) for row in rows} == set(Row.__subclasses__())
    for kind in Row.__subclasses__():
        names = [one.name for one in fields(kind)]
        found = results.query(f"SELECT run, {', '.join(names)} FROM {kind.table} ORDER BY rowid")
        expected = [(1, *(getattr(row, n) for n in names)) for row in rows if type(row) is kind]
        assert list(found.rows) == expected


def test_runs_are_numbered_and_hold_what_was_asked(results: Results) -> None:
    """One after the other, over calls."""
    assert results.add([pruned(), pruned(pattern="2:4")]) == [1, 2]
    assert results.add([Run("prune", "tiny", method="FLAP", ratio=0.25)]) == [3]
    assert results.add([]) == []
    found = results.query("SELECT run, method, sparsity, pattern, ratio, target FROM runs")
    assert sorted(found.rows) == [
        (1, "Wanda", 0.5, None, None, "0.5"),
        (2, "Wanda", None, "2:4", None, "2:4"),
        (3, "FLAP", None, None, 0.25, "0.25"),
    ]


def test_views_say_what_is_left_and_what_it_costs(results: Results) -> None:
    """Against the dense stage of the same run; matrices that were cut against their old shape."""
    cut = [*matrices("dense", 0.0), *matrices("pruned", 0.0, width=12)]
    results.add([pruned(perplexity=25.0), Run("prune", "tiny", method="FLAP", ratio=0.2, rows=cut)])
    (row,) = results.query("SELECT dense, perplexity, sparsity FROM overview WHERE run = 1").rows
    assert row == (10.0, 25.0, 0.5)
    (row,) = results.query(
        "SELECT times_dense, windows, text FROM perplexities WHERE run = 1 AND stage = 'pruned'"
    ).rows
    assert row == (2.5, 8, "wikitext2")
    found = results.query("SELECT component, cut FROM pruned_matrices WHERE run = 2 AND block = 0")
    assert dict(found.rows)["down_proj"] == pytest.approx(0.25)
    assert dict(found.rows)["up_proj"] == 0


@pytest.mark.parametrize(
    ("asked", "view"),
    [
        ({"sparsity": 0.5}, "wanda_0_5_down_proj"),
        ({"pattern": "2:4"}, "wanda_2_4_down_proj"),
        ({"ratio": 0.25}, "wanda_0_25_down_proj"),
    ],
)
def test_a_view_for_each_method_target_and_kind_of_matrix(
    results: Results, asked: dict[str, object], view: str
) -> None:
    """By layer, of all runs that asked for the same; also of those that are added later."""
    results.add([pruned(**asked)])
    results.add([pruned(**asked), pruned("SparseGPT", **asked)])
    found = results.query(f"SELECT run, layer, sparsity, norm_kept FROM {view}")
    assert found.rows == [(run, layer, 0.5, 0.75) for run in (1, 2) for layer in (0, 1)]


def test_a_method_of_any_name_makes_a_view_and_no_harm(results: Results) -> None:
    """Quotes in it are quoted."""
    results.add([pruned("It's; DROP TABLE runs --")])
    assert results.query("SELECT count(*) FROM it_s_drop_table_runs_0_5_up_proj").rows == [(2,)]
    assert results.query("SELECT count(*) FROM runs").rows == [(1,)]


# --- one writer, whole runs ---


def test_a_failing_run_leaves_nothing(results: Results) -> None:
    """Neither its line nor rows of other tables, nor of the runs that were added with it."""
    results.add([pruned()])
    wrong = Run("prune", "tiny", rows=[*matrices("pruned", 0.5), Curve("a", "no number", 1.0)])  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError)):
        results.add([pruned(), wrong])
    assert results.query("SELECT count(*) FROM runs").rows == [(1,)]
    assert results.query("SELECT count(DISTINCT run) FROM matrices").rows == [(1,)]


KILLED = """
import os, signal, sys
from lightning_prune.analysis.store import results
from lightning_prune.analysis.store.rows import Matrix
from tests.analysis.store.made import pruned

insert = results._insert_rows

def die(connection, kind, numbers, runs):
    insert(connection, kind, numbers, runs)
    if kind is Matrix:
        os.kill(os.getpid(), signal.SIGKILL)

results._insert_rows = die
results.Results(sys.argv[1]).add([pruned()])
"""
WRITER = """
import sys
from lightning_prune.analysis.store.results import Results
from tests.analysis.store.made import pruned

for _ in range(3):
    Results(sys.argv[1]).add([pruned()])
"""


def started(code: str, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[3])


@pytest.mark.slow
def test_a_killed_run_leaves_nothing(results: Results) -> None:
    """Killed while it writes, after its line and its matrices were inserted."""
    results.add([pruned()])
    assert started(KILLED, results.path).wait(120) == -signal.SIGKILL
    for table in ("runs", "matrices"):
        assert results.query(f"SELECT DISTINCT run FROM {table}").rows == [(1,)]
    assert results.add([pruned()]) == [2]


@pytest.mark.slow
def test_several_processes_write_one_after_the_other(tmp_path: Path) -> None:
    """Into a file that none of them finds: all runs are there, each with all of its matrices."""
    path = tmp_path / "results.duckdb"
    processes = [started(WRITER, path) for _ in range(3)]
    assert [process.wait(240) for process in processes] == [0, 0, 0]
    counts = (
        Results(path).query("SELECT run, count(*) FROM matrices GROUP BY run ORDER BY run").rows
    )
    assert counts == [(run, 16) for run in range(1, 10)]
    assert [file.name for file in tmp_path.iterdir()] == ["results.duckdb"]


def test_who_waits_too_long_says_for_whom(results: Results) -> None:
    """The limit holds, and the file is as it was."""
    results.prepare()
    holder = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(results.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for do in (results.prepare, lambda: results.query("SELECT 1")):
            with pytest.raises(TimeoutError, match=f"in use by process {process.pid}, and was for"):
                do()
        process.communicate()
    assert results.query("SELECT count(*) FROM runs").rows == [(0,)]


def test_a_thread_that_reads_is_waited_for(results: Results) -> None:
    """In one process too, a file is open in one way at a time."""
    results.prepare()
    reading, done = threading.Event(), []

    def read() -> None:
        with results.reading("SELECT 1"):
            reading.set()
            time.sleep(0.2)
            done.append(True)

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait()
    results.add([pruned()])
    assert done
    thread.join()


def test_the_columns_of_the_tables_are_the_fields_of_their_classes(results: Results) -> None:
    """In the same order, with the run in front."""
    results.prepare()
    tables: list[type] = [*Row.__subclasses__(), Run]
    for kind in tables:
        columns = [row[0] for row in results.query(f"DESCRIBE {kind.table}").rows]  # type: ignore[attr-defined]
        names = [one.name for one in fields(kind)]
        if kind is Run:
            assert {*columns, "rows"} == {"run", "created", "target", *names}
        else:
            assert columns == ["run", *names]
    shown = {row[0] for row in results.query("SHOW TABLES").rows}
    assert shown == {MARK, *VIEWS, *(kind.table for kind in tables)}  # type: ignore[attr-defined]


def test_all_zero_and_empty_matrices_are_no_division_by_zero(results: Results) -> None:
    """Of a norm or a shape of nothing, there is no share."""
    rows = [
        Matrix("dense", "w", 0, "mlp.up_proj", 4, 4, 16, 1.0, 1.0, 0.0),
        Matrix("pruned", "w", 0, "mlp.up_proj", 4, 4, 16, 1.0, 1.0, 0.0),
        Matrix("dense", "v", 0, "mlp.down_proj", 4, 0, 0, 0.0, 0.0, 0.0),
        Matrix("pruned", "v", 0, "mlp.down_proj", 4, 0, 0, 0.0, 0.0, 0.0),
    ]
    results.add([Run("prune", "tiny", method="Wanda", sparsity=1.0, rows=rows)])
    found = results.query("SELECT component, sparsity, norm_kept, cut FROM pruned_matrices")
    assert sorted(found.rows) == [("down_proj", None, None, None), ("up_proj", 1.0, None, 0.0)]
