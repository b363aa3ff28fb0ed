"""Opens the store's file: one writer at a time, and readers that can do nothing but read it."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.analysis.store.schema import STEPS, VERSION, VIEWS
from lightning_prune.files import hidden_name, needing_room

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["NEEDS", "reading", "writing"]

NEEDS = "the store of results needs DuckDB: pip install 'lightning-prune[analysis]'"
WAIT = 60.0
"""Seconds that a process waits for another one that has the file."""
PAUSE = 0.1
MARK = "lightning_prune_store"
"""The table that a store is known by; it holds the version of the others."""
LOCKED = re.compile("could not set lock|conflicting lock|used by another process", re.IGNORECASE)
READ_ONLY = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "",
    "lock_configuration": "true",
}
"""What a query may not do: read or write any other file, load code, or allow itself more."""


@contextmanager
def writing(path: Path, wait: float = WAIT) -> Iterator[DuckDBPyConnection]:
    """The only writer of a store, which is made, or brought up to date, first.

    What the block does is done as a whole when it ends, or not at all.

    Args:
        path: of the file.
        wait: seconds to wait for other processes at most.

    Raises:
        ImportError: there is no DuckDB.
        ValueError: the file is no store, or one of a newer version.
        TimeoutError: another process has the file for longer.
        OSError: it cannot be written.
    """
    if not path.exists():
        _make(path)
    with needing_room(path), _opened(path, wait) as connection:
        _check_version(connection, path)
        connection.execute("BEGIN")
        _bring_up_to_date(connection)
        yield connection
        connection.execute("COMMIT")


@contextmanager
def reading(path: Path, wait: float = WAIT) -> Iterator[DuckDBPyConnection]:
    """A reader of a store, whatever it is asked for: it can neither write nor read other files.

    A store of an older version is brought up to date first.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError, ValueError, TimeoutError, OSError: as `writing`.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"no store at {str(path)!r}; `--db {path}` of a command that measures makes one"
        )
    with _opened(path, wait, read_only=True, config=READ_ONLY) as connection:
        version = _check_version(connection, path)
        if version == VERSION:
            yield connection
            return
    with writing(path, wait):
        pass
    with _opened(path, wait, read_only=True, config=READ_ONLY) as connection:
        yield connection


# --- opening ---


@contextmanager
def _opened(path: Path, wait: float, **how: Any) -> Iterator[DuckDBPyConnection]:
    """A connection; closed without a commit, what it has begun is undone."""
    connection = _connected(path, wait, how)
    try:
        yield connection
    finally:
        connection.close()


def _connected(path: Path, wait: float, how: dict[str, Any]) -> DuckDBPyConnection:
    duckdb = _library()
    deadline = time.monotonic() + wait
    while True:
        try:
            return duckdb.connect(str(path), **how)
        except duckdb.ConnectionException:  # this process has it open in the other way
            reason = "another thread of this process"
        except duckdb.IOException as error:
            if not LOCKED.search(str(error)):
                raise _unusable(path, error) from error
            process = re.search(r"PID (\d+)", str(error))
            reason = f"process {process[1]}" if process else "another process"
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"{path} is in use by {reason}, and was for all of the {wait:g} seconds that were "
                "waited. One process writes at a time: close what has it open, and do it again."
            )
        time.sleep(PAUSE)


def _library() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise ImportError(NEEDS) from error
    return duckdb


def _unusable(path: Path, error: Exception) -> Exception:
    if path.is_dir():
        return ValueError(
            f"{path} is a folder; give the name of a file, such as {path}/runs.duckdb"
        )
    if "valid DuckDB database" in str(error):
        return ValueError(f"{path} is no store of results: it is no DuckDB file. {OTHER_NAME}")
    if not path.exists() and not os.access(path.parent, os.W_OK):
        return PermissionError(f"nothing may be written into the folder {str(path.parent)!r}")
    if path.exists() and not os.access(path, os.R_OK):
        return PermissionError(f"{path} may not be read")
    return ValueError(f"{path} cannot be opened: {str(error).splitlines()[0]}")


OTHER_NAME = "Give the name of another file, or of none that is there."


# --- versions ---


def _make(path: Path) -> None:
    """A new store, beside its place, and linked there: two processes make one, and the first's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = hidden_name(path, "tmp")
    try:
        with needing_room(path), _opened(hidden, 0.0) as connection:
            connection.execute(f"CREATE TABLE {MARK} (version INTEGER NOT NULL)")
            connection.execute(f"INSERT INTO {MARK} VALUES (0)")
        try:
            os.link(hidden, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not path.exists():
                shutil.copyfile(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)


def _check_version(connection: DuckDBPyConnection, path: Path) -> int:
    """The version of a store.

    Raises:
        ValueError: it is none, or of a version that is not known here.
    """
    marks = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [MARK]
    ).fetchone()
    if not marks or not marks[0]:
        raise ValueError(
            f"{path} is no store of results: it is a DuckDB file of something else. {OTHER_NAME}"
        )
    version = _version(connection)
    if version > VERSION:
        raise ValueError(
            f"{path} is a store of version {version}, and this lightning_prune knows versions up "
            f"to {VERSION}. Upgrade it, or give another file."
        )
    return version


def _version(connection: DuckDBPyConnection) -> int:
    found = connection.execute(f"SELECT max(version) FROM {MARK}").fetchone()
    return int(found[0]) if found and found[0] is not None else 0


def _bring_up_to_date(connection: DuckDBPyConnection) -> None:
    version = _version(connection)
    if version == VERSION:
        return
    for step in STEPS[version:]:
        connection.execute(step)
    for name, select in VIEWS.items():
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS {select}")
    connection.execute(f"UPDATE {MARK} SET version = {VERSION}")
