"""Writing files so that a crash or a full disk leaves the old file or none, never half a file."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import psutil
import torch
from safetensors.torch import save_file

__all__ = [
    "DiskFull",
    "as_umask_says",
    "atomic_write",
    "hidden_name",
    "is_disk_full",
    "needing_room",
    "replacing",
    "save_tensors",
    "sha256",
    "write_json",
]

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is larger than this process may write",
}
"""What errors of the system say of the room for a file, by their numbers."""


class DiskFull(OSError):
    """There is no room for a file. Its message is a sentence; `filename` is the file.

    Attributes:
        needed: how many bytes it needs; None: not known.
    """

    needed: int | None = None

    def __str__(self) -> str:
        return str(self.strerror)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no room, also one of a library that is not Python's."""
    return _number(error) is not None


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno if error.errno in FULL else None
    code = re.search(r"\(os error (\d+)\)", str(error))  # as Rust puts it
    return int(code[1]) if code and int(code[1]) in FULL else None


@contextmanager
def needing_room(path: str | Path, size: int | None = None, what: str = "") -> Iterator[None]:
    """Around writing: where there is no room for it, it is said where, for what and how much.

    Args:
        path: what is written.
        size: how many bytes it needs; None: not known.
        what: in words, where the path tells nothing.

    Raises:
        DiskFull: there is no room.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number is None:
            raise
        size = getattr(error, "needed", None) if size is None else size
        full = DiskFull(number, _no_room(number, Path(path), size, what), str(path))
        full.needed = size
        raise full from error


def _no_room(number: int, path: Path, size: int | None, what: str) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    needed = "" if size is None else f"it needs {_readable(size)}, and "
    free = _readable(shutil.disk_usage(folder).free)
    return (
        f"{FULL[number]}: no room to write {what or path}; {needed}there are {free} free in "
        f"{folder}. What was there before is as it was"
    )


def _readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; sync and rename it onto `path` when the block succeeds.

    Args:
        path: the final file; its folder is made if it does not exist.
        mode: "w" for text (UTF-8) or "wb" for bytes.

    Raises:
        DiskFull: there is no room for it; `path` is then left as it was.
        OSError: the folder cannot be written.
    """
    encoding = None if "b" in mode else "utf-8"
    with replacing(path) as temporary, open(temporary, mode, encoding=encoding) as file:
        yield file


@contextmanager
def replacing(path: str | Path, size: int | None = None) -> Iterator[Path]:
    """A path in a hidden folder; synced and renamed onto `path` when the block succeeds.

    The folder is made if it does not exist. If the block fails, `path` is left as it was.

    Args:
        path: the final file.
        size: how many bytes it will have; None: not known.

    Raises:
        DiskFull: there is no room for it.
    """
    path = Path(path)
    with needing_room(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder, because others put temporary files of their own beside what they write.
        hidden = hidden_name(path, "tmp")
        hidden.mkdir()
        temporary = hidden / path.name
        try:
            yield temporary
            as_umask_says([temporary], hidden)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def as_umask_says(paths: Iterable[Path], folder: Path) -> None:
    """Let those read files who may read their folder; safetensors writes for the owner alone."""
    readers = folder.stat().st_mode & 0o666
    for path in paths:
        with suppress(OSError):  # some file systems know no rights
            path.chmod(path.stat().st_mode | readers)


def hidden_name(path: Path, ending: str) -> Path:
    """A name beside `path` for what is about to become it; what a killed process left is removed.

    It tells the machine and the process, as process ids repeat on nodes that share a disk.
    """
    machine = re.sub(r"\W", "-", socket.gethostname())
    for left in path.parent.glob(f".{glob.escape(path.name)}.{machine}-*"):
        process = left.name.removeprefix(f".{path.name}.{machine}-").partition("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(True)
    return path.with_name(f".{path.name}.{machine}-{os.getpid()}-{uuid4().hex[:8]}.{ending}")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def save_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, atomically."""
    with replacing(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        save_file(dict(tensors), temporary, metadata=metadata)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
