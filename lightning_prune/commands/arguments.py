"""Checks of what several commands take, before work is done."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec

import torch

from lightning_prune.analysis.store.rows import Run
from lightning_prune.checkpoints.bundled import bundled_model, meant_model
from lightning_prune.commands.output import say

__all__ = ["Kept", "model_folder", "usable_device", "writable_folder"]

P = ParamSpec("P")


class Kept:
    """Where results are added, besides being shown.

    Args:
        db: a store, one DuckDB file, that the results are added to as well; it is made if it is
            not there.

    Raises:
        ImportError, ValueError, TimeoutError, OSError: it cannot be written; see `Results`.
    """

    def __init__(self, db: str | None = None) -> None:
        self.db = db
        if db is not None:
            from lightning_prune.analysis.store.results import Results

            self._results = Results(db)
            self._results.prepare()

    def add(
        self, make: Callable[P, Run | Sequence[Run]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Add the runs that a function makes of a result; without a store it is not called."""
        if self.db is None:
            return
        made = make(*args, **kwargs)
        first, *others = self._results.add([made] if isinstance(made, Run) else made)
        last = f" to {others[-1]}" if others else ""
        say(f"{self.db}  run{'s' * bool(others)} {first}{last}")


def usable_device(name: str | None) -> torch.device:
    """A device that is there; None: a GPU if there is one, else the CPU.

    Raises:
        ValueError: there is none of that name.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()
    except (AssertionError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"device {name!r} cannot be used: {reason}") from error
    return device


def writable_folder(out: str | Path | None) -> Path | None:
    """A folder to write into: it is made, and a file is tried there; None: nothing is written.

    Raises:
        ValueError: a file is there.
        OSError: nothing can be written there.
    """
    if out is None:
        return None
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{out} is a file; give the name of a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    return folder


def model_folder(path: str) -> str:
    """Where a saved model lies; never asks the hub.

    Args:
        path: a Hugging Face folder, or "quickstart" for the model that comes with the package.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
    """
    if (bundled := bundled_model(path)) is not None:
        return str(bundled)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {path!r}; give one that holds config.json and weights.{meant_model(path)}"
        )
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"the folder {path!r} holds no model: it has no config.json. Give the folder that "
            "holds config.json and model.safetensors."
        )
    return str(folder)
