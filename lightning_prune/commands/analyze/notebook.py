"""`lightning-prune analyze notebook FILE`: a store in a notebook, in the browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning_prune.analysis.store.results import Results
from lightning_prune.commands.arguments import writable_folder
from lightning_prune.report.files import print_files

__all__ = ["notebook"]

NEEDS = "the notebook needs marimo: pip install 'lightning-prune[analysis,notebook]'"


def notebook(
    file: str, *, edit: bool = False, port: int | None = None, out: str | Path | None = None
) -> None:
    """Look at a store in a notebook, in the browser.

    Runs side by side, their matrices, and any query. The notebook is a marimo file that comes with
    the package, explore.py; `edit` lays a copy of it into the current folder.

    Args:
        file: a store, which --db of the commands that measure, or the callback Store, has made.
        edit: show its code, and let it be changed: that of explore.py in the current folder, a copy
            where there is none yet.
        port: of the server; if not given, a free one.
        out: a folder for explore.html, what the notebook shows at first, in place of a server; its
            scripts come from the network.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: marimo or DuckDB is not installed.
        ValueError: it is no store, the notebook fails, or another explore.py is in the way.
    """
    if find_spec("marimo") is None:
        raise ImportError(NEEDS)
    Results(file).query("SELECT 1")
    folder = writable_folder(out)
    arguments = ["--", "--db", str(Path(file).resolve())]
    if folder is not None:
        path = folder / "explore.html"
        with _copied(_notebook()) as copy:
            _marimo(
                "export",
                "html",
                str(copy),
                "-o",
                str(path.resolve()),
                "--no-include-code",
                "-f",
                *arguments,
            )
        print_files({path.name: str(path)})
        return
    where = ["--port", str(port)] if port is not None else []
    if edit:
        _marimo("edit", str(_own(_notebook())), *where, *arguments)
        return
    with _copied(_notebook()) as copy:
        _marimo("run", str(copy), *where, *arguments)


def _own(notebook: Path) -> Path:
    """The notebook in the current folder, which may be changed; a copy where there is none yet."""
    mine = Path(notebook.name)
    if not mine.exists():
        shutil.copy(notebook, mine)
    elif "marimo.App(" not in mine.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{mine.resolve()} is no marimo notebook: rename it, or edit elsewhere")
    print_files({mine.name: str(mine)})
    return mine


@contextmanager
def _copied(notebook: Path) -> Iterator[Path]:
    """A copy for a while: marimo leaves what a notebook has shown beside it, as __marimo__."""
    with TemporaryDirectory() as folder:
        yield Path(shutil.copy(notebook, folder))


def _notebook() -> Path:
    """The file: in the package, or in a checkout at its root."""
    package = Path(__file__).parents[2]
    inside = package / "notebooks" / "explore.py"
    return inside if inside.is_file() else package.parent / "notebooks" / "explore.py"


def _marimo(*arguments: str) -> None:
    """Run marimo until it ends.

    Raises:
        ValueError: it has failed, and said why.
    """
    done = subprocess.run([sys.executable, "-m", "marimo", *arguments], check=False)
    if done.returncode not in (0, -2, 130):  # Ctrl-C ends a server
        raise ValueError(f"marimo ended with status {done.returncode}; it has said why above")
