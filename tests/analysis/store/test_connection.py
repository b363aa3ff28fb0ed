"""Files: older, newer, missing, and those that are something else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lightning_prune.analysis.store import connection as connections
from lightning_prune.analysis.store.connection import MARK, writing
from lightning_prune.analysis.store.results import Results
from lightning_prune.analysis.store.schema import STEPS, VERSION
from tests.analysis.store.made import pruned

duckdb = pytest.importorskip("duckdb")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results.duckdb", wait=0.5)


def test_an_older_file_is_brought_up_to_date(results: Results) -> None:
    """With all that is in it, by whoever opens it first: here, a reader."""
    with duckdb.connect(str(results.path)) as old:
        old.execute(f"CREATE TABLE {MARK} (version INTEGER)")
        old.execute(f"INSERT INTO {MARK} VALUES (1)")
        old.execute(STEPS[0])
        old.execute("INSERT INTO runs (run, created, command) VALUES (1, now(), 'prune')")
        kind = "mlp.down_proj"
        old.execute(f"INSERT INTO matrices VALUES (1, 'model', 'w', 0, '{kind}', 2, 4, 4, 0, 1, 3)")
    assert results.query("SELECT sparsity FROM overview").rows == [(0.5,)]
    assert results.query("SELECT count(*) FROM similarities").rows == [(0,)]
    assert results.query(f"SELECT version FROM {MARK}").rows == [(VERSION,)]
    assert results.add([pruned()]) == [2]


def test_circuits_of_an_older_file_are_of_the_first_draw(results: Results) -> None:
    """Of random parts, draws were not told apart."""
    with duckdb.connect(str(results.path)) as old:
        old.execute(f"CREATE TABLE {MARK} (version INTEGER)")
        old.execute(f"INSERT INTO {MARK} VALUES (2)")
        for step in STEPS[:2]:
            old.execute(step)
        old.execute("INSERT INTO circuits (run, name) VALUES (1, 'random')")
    assert results.query("SELECT name, draw FROM circuits").rows == [("random", 1)]


def test_a_folder_that_may_not_be_written_is_named(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the hidden file that was to become the store."""

    def refused(path: str, **how: object) -> None:
        raise duckdb.IOException(f'IO Error: Cannot open file "{path}": Permission denied')

    monkeypatch.setattr(duckdb, "connect", refused)
    monkeypatch.setattr(connections.os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="nothing may be written into the folder ") as error:
        results.prepare()
    assert "tmp" not in str(error.value).replace(str(results.path.parent), "")


def test_a_step_that_fails_leaves_the_older_file(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is the second of two."""
    results.add([pruned()])
    steps = (*STEPS, "CREATE TABLE more (a INTEGER)", "CREATE TABLE runs (a INTEGER)")
    monkeypatch.setattr(connections, "STEPS", steps)
    monkeypatch.setattr(connections, "VERSION", len(steps))
    with pytest.raises(duckdb.CatalogException, match="runs"):
        results.prepare()
    monkeypatch.undo()
    assert results.query(f"SELECT version FROM {MARK}").rows == [(VERSION,)]
    assert ("more",) not in results.query("SHOW TABLES").rows


def test_a_newer_file_is_refused(results: Results) -> None:
    """To read and to write; it is left as it is."""
    with writing(results.path) as connection:
        connection.execute(f"UPDATE {MARK} SET version = {VERSION + 1}")
    message = f"is a store of version {VERSION + 1}, and this .* knows versions up to {VERSION}"
    for do in (results.prepare, lambda: results.query("SELECT 1"), lambda: results.add([pruned()])):
        with pytest.raises(ValueError, match=message):
            do()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text", "is no store of results: it is no DuckDB file"),
        ("", "is no store of results: it is no DuckDB file"),
        ("duckdb", "is no store of results: it is a DuckDB file of something else"),
        ("folder", "is a folder; give the name of a file"),
    ],
)
def test_another_file_is_refused(results: Results, content: str, message: str) -> None:
    """And left as it is."""
    if content == "duckdb":
        with duckdb.connect(str(results.path)) as other:
            other.execute("CREATE TABLE runs (a INTEGER)")
    elif content == "folder":
        results.path.mkdir()
    else:
        results.path.write_text(content)
    before = None if content == "folder" else results.path.read_bytes()
    for do in (results.prepare, lambda: results.query("SELECT 1")):
        with pytest.raises(ValueError, match=message):
            do()
    assert before is None or results.path.read_bytes() == before


def test_a_missing_file_is_not_made_by_reading(results: Results) -> None:
    with pytest.raises(FileNotFoundError, match="no store at .*`--db .*` of a command that meas"):
        results.query("SELECT 1")
    assert not results.path.exists()


def test_without_duckdb_it_is_said_what_to_install(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(
        ImportError, match=r"needs DuckDB: pip install 'lightning-prune\[analysis\]'"
    ):
        results.prepare()
