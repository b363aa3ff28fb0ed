"""`lightning-prune analyze report FILE`: runs of a store side by side, as tables and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_prune.analysis.store.compared import stored_runs
from lightning_prune.analysis.store.results import Results
from lightning_prune.commands.arguments import writable_folder
from lightning_prune.report.files import show
from lightning_prune.report.stored import stored_document

__all__ = ["report"]


def report(file: str, *, runs: Sequence[int] | None = None, out: str | Path | None = None) -> None:
    """Compare the runs of a store: a table and a page with pictures.

    What each run has taken away and where, what that has cost, and what was regained.

    Args:
        file: a store, which --db of the commands that measure, or the callback Store, has made.
        runs: their numbers, as `analyze db FILE` lists them; if not given, all.
        out: a folder for comparison.html, .md, .csv, .json and .svg.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no store, or has no such runs.
    """
    folder = writable_folder(out)
    compared = stored_runs(Results(file), runs)
    show(stored_document(file, compared), folder)
