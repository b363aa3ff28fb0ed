"""The store of results: many runs in one DuckDB file, without a server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pyarrow as pa

from lightning_prune.analysis.store.connection import WAIT, reading, writing
from lightning_prune.analysis.store.rows import Matrix, Row, Run
from lightning_prune.analysis.store.schema import method_view

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Answer", "Results"]

ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64()}


@dataclass(frozen=True)
class Answer:
    """What a query has found.

    Attributes:
        columns: their names.
        rows: as long as the columns.
        more: whether there were more rows than were asked for.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    more: bool = False

    def records(self) -> list[dict[str, Any]]:
        """The rows by the names of the columns."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Results:
    """Runs in one DuckDB file.

    The file is open only while it is written or read, and one process writes at a time: others wait
    for it. The runs of one call are added together or, if it dies, not at all.

    ```python
    results = Results("results.duckdb")
    results.add([Run("mine", "quickstart", method="Wanda", sparsity=0.5)])
    results.query("SELECT run, method FROM runs").rows  # [(1, 'Wanda')]
    ```

    Args:
        path: of the file; it is made with the first run.
        wait: seconds to wait for another process at most.
    """

    def __init__(self, path: str | Path, wait: float = WAIT) -> None:
        self.path, self.wait = Path(path), wait

    def prepare(self) -> None:
        """Make the file, or bring it up to date, so that what could go wrong does before the work.

        Raises:
            ImportError: there is no DuckDB.
            ValueError: the file is no store, or one of a newer version.
            TimeoutError: another process has had it for `wait` seconds.
            OSError: it cannot be written.
        """
        with writing(self.path, self.wait):
            pass

    def add(self, runs: Sequence[Run]) -> list[int]:
        """Add runs, all of them or none; returns their numbers.

        Raises:
            ImportError, ValueError, TimeoutError, OSError: as `prepare`.
        """
        if not runs:
            return []
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        with writing(self.path, self.wait) as connection:
            last = connection.execute("SELECT coalesce(max(run), 0) FROM runs").fetchone()
            assert last is not None
            numbers = [last[0] + 1 + i for i in range(len(runs))]
            for number, run in zip(numbers, runs, strict=True):
                _insert_run(connection, number, now, run)
            for kind in Row.__subclasses__():
                _insert_rows(connection, kind, numbers, runs)
            _add_views(connection, runs)
        return numbers

    def query(self, sql: str, most: int | None = None, values: Sequence[Any] = ()) -> Answer:
        """What a query finds; it can change nothing, and read no other file.

        Args:
            sql: of DuckDB; docs/analysis.md lists tables and columns.
            most: rows at most; None: all.
            values: for the question marks in it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the query is wrong, or asks for what is not allowed.
            ImportError, TimeoutError, OSError: as `prepare`.
        """
        with self.reading(sql, values) as (columns, found):
            rows = found.fetchall() if most is None else found.fetchmany(most + 1)
        return Answer(columns, rows[:most], most is not None and len(rows) > most)

    @contextmanager
    def reading(
        self, sql: str, values: Sequence[Any] = ()
    ) -> Iterator[tuple[list[str], DuckDBPyConnection]]:
        """The columns of a query and its rows, as they are fetched; errors are those of `query`."""
        with reading(self.path, self.wait) as connection:
            import duckdb

            try:
                if not duckdb.extract_statements(sql):
                    raise ValueError("the query is empty; give one, such as SHOW TABLES")
                found = connection.execute(sql, list(values))
                yield [column[0] for column in found.description or ()], found
            except duckdb.Error as error:
                raise ValueError(f"the query cannot be answered: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What DuckDB says, without its picture of the query."""
    return " ".join(str(error).partition("\nLINE ")[0].split())


# --- adding ---


def _insert_run(connection: DuckDBPyConnection, number: int, created: datetime, run: Run) -> None:
    names = [one.name for one in fields(Run) if one.name not in ("rows", "settings")]
    values = {
        "run": number,
        "created": created,
        "target": run.target,
        "settings": json.dumps(dict(run.settings), default=str),
        **{name: getattr(run, name) for name in names},
    }
    marks = ", ".join("?" * len(values))
    connection.execute(
        f"INSERT INTO runs ({', '.join(values)}) VALUES ({marks})", [*values.values()]
    )


def _insert_rows(
    connection: DuckDBPyConnection, kind: type[Row], numbers: Sequence[int], runs: Sequence[Run]
) -> None:
    """All rows of one table at once; row by row, DuckDB takes a millisecond for each."""
    found = [
        (number, row)
        for number, run in zip(numbers, runs, strict=True)
        for row in run.rows
        if type(row) is kind
    ]
    if not found:
        return
    columns = {"run": pa.array([number for number, _ in found], pa.int64())}
    for name, arrow in _columns(kind).items():
        columns[name] = pa.array([getattr(row, name) for _, row in found], arrow)
    connection.register("added", pa.table(columns))
    connection.execute(f"INSERT INTO {kind.table} BY NAME SELECT * FROM added")
    connection.unregister("added")


def _columns(kind: type[Row]) -> dict[str, pa.DataType]:
    """The columns of a table by name, with their types, from the fields of its class."""
    hints = get_type_hints(kind)
    return {one.name: ARROW[(get_args(hints[one.name]) or (hints[one.name],))[0]]
            for one in fields(kind)}  # fmt: skip


def _add_views(connection: DuckDBPyConnection, runs: Iterable[Run]) -> None:
    """A view for each kind of matrix under each method and target, if it is not there yet."""
    wanted = {
        (run.method, run.target, row.kind.rpartition(".")[2])
        for run in runs
        for row in run.rows
        if isinstance(row, Matrix) and row.stage != "dense"
    }
    for method, target, component in wanted:
        if method and target:
            name, select = method_view(method, target, component)
            connection.execute(f'CREATE VIEW IF NOT EXISTS "{name}" AS {select}')
