"""`lightning-prune analyze dumps FOLDER --db FILE`: old dumps of pruned matrices, in a store."""

from __future__ import annotations

from lightning_prune.analysis.store.dumps import runs_of_dumps
from lightning_prune.commands.arguments import Kept

__all__ = ["dumps"]


def dumps(folder: str, *, db: str) -> None:
    """Add old dumps of pruned matrices to a store of results.

    Files named like layer3-down_proj-wanda-0.5.pt hold a matrix each. Nothing but tensors is
    unpickled. All files of one method and sparsity become a run.

    Args:
        folder: with the files.
        db: a store, one DuckDB file; it is made if it is not there.

    Raises:
        FileNotFoundError: there are no such files.
        ValueError: a file is damaged, or holds something else than a matrix.
    """
    Kept(db).add(runs_of_dumps, folder)
