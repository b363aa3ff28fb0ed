"""Writing a whole folder so that a crash or a full disk leaves the old one, or none."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_prune.checkpoints.config import raw_config
from lightning_prune.checkpoints.names import CONFIG
from lightning_prune.files import DiskFull, as_umask_says, hidden_name, needing_room

__all__ = ["check_replaceable", "check_room", "replaced_folder"]

SUFFIXES = (".jinja", ".json", ".md", ".model", ".py", ".safetensors", ".tiktoken", ".txt")
"""Of the files that a model folder has."""
SLACK = 16 << 20  # bytes for the small files beside the weights


@contextmanager
def replaced_folder(folder: Path, size: int) -> Iterator[Path]:
    """A new folder beside `folder`; it takes its place, synced, when the block succeeds.

    Args:
        folder: the final folder. One that is there already must hold a model and nothing else, and
            is replaced with all it holds; an empty one is replaced too.
        size: bytes that are about to be written.

    Raises:
        ValueError: there is something else at `folder`, which is left alone.
        DiskFull: too little room on the disk.
        OSError: the folder cannot be written.
    """
    check_replaceable(folder)
    folder = folder.resolve()  # what a link points to is replaced, and not the link
    folder.parent.mkdir(parents=True, exist_ok=True)
    check_room(folder, size)
    with needing_room(folder, size), _replacing(folder) as temporary:
        yield temporary


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    temporary, old = hidden_name(folder, "tmp"), hidden_name(folder, "old")
    try:
        temporary.mkdir()
        yield temporary
        as_umask_says(temporary.iterdir(), temporary)
        for path in [*temporary.iterdir(), temporary]:
            _sync(path)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        _sync(folder.parent)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def check_room(path: Path, size: int) -> None:
    """Refuse to begin what will not fit.

    Args:
        path: what is about to be written; its parent exists.
        size: its size in bytes.

    Raises:
        DiskFull: too little room on the disk.
    """
    free = shutil.disk_usage(path.parent).free
    if free < size + SLACK:
        full = DiskFull(
            errno.ENOSPC,
            f"saving {path} needs {(size + SLACK) / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB "
            "free. Nothing was written",
            str(path),
        )
        full.needed = size + SLACK
        raise full


def check_replaceable(folder: str | Path) -> None:
    """Refuse a folder that `replaced_folder` would refuse.

    Raises:
        ValueError: there is something else at `folder` than a model.
    """
    folder = Path(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the name of a folder")
    if foreign := _no_part_of_a_model(folder):
        raise ValueError(
            f"{folder} is not a plain model folder: it has {foreign}. Saving replaces a folder "
            "as a whole, so give one that is new, empty or holds a model and nothing else."
        )


def _no_part_of_a_model(folder: Path) -> str | None:
    """What would be lost if the folder were replaced, or what it lacks of a model."""
    entries = sorted(folder.iterdir())
    for path in entries:
        if path.is_dir():
            return f"folders in it ({path.name})"
        if path.suffix not in SUFFIXES and not path.name.startswith((".", "LICENSE", "NOTICE")):
            return path.name
    try:
        is_model = not entries or "model_type" in raw_config(folder)
    except (FileNotFoundError, ValueError):
        is_model = False
    return None if is_model else f"no {CONFIG} of a model"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
