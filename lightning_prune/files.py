"""Writing files so that a crash or a full disk leaves the old file or none, never half a file."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import psutil
import torch
from safetensors.torch import save_file

__all__ = ["atomic_write", "hidden_name", "replacing", "save_tensors", "sha256", "write_json"]


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; sync and rename it onto `path` when the block succeeds.

    Args:
        path: the final file; its folder is made if it does not exist.
        mode: "w" for text (UTF-8) or "wb" for bytes.

    Raises:
        OSError: the disk is full or the folder cannot be written; `path` is then left as it was.
    """
    encoding = None if "b" in mode else "utf-8"
    with replacing(path) as temporary, open(temporary, mode, encoding=encoding) as file:
        yield file


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; synced and renamed onto `path` when the block succeeds.

    The folder is made if it does not exist. If the block fails, `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = hidden_name(path, "tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    with replacing(path) as temporary:
        save_file(dict(tensors), temporary, metadata=metadata)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
