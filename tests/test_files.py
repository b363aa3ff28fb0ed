"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lightning_prune.files import (
    DiskFull,
    atomic_write,
    hidden_name,
    is_disk_full,
    replacing,
    save_tensors,
    sha256,
    write_json,
)


def fail_in(path: Path, how: str) -> None:
    """Writes something, then fails."""
    if how == "text":
        with atomic_write(path) as file:
            file.write("half")
            raise OSError("disk full")
    if how == "bytes":
        with atomic_write(path, "wb") as file:
            file.write(b"half")
            raise OSError("disk full")
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError("disk full")


@pytest.mark.parametrize("how", ["text", "bytes", "path"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, how: str) -> None:
    """The file keeps what it held, and no temporary file stays."""
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        fail_in(path, how)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("how", ["text", "bytes", "path"])
def test_a_failed_first_write_leaves_nothing(tmp_path: Path, how: str) -> None:
    """Where there was no file, there is none afterwards."""
    with pytest.raises(OSError, match="disk full"):
        fail_in(tmp_path / "file", how)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=repr,
)
def test_a_full_disk_is_named_whoever_finds_it_out(tmp_path: Path, error: Exception) -> None:
    """With what was written and how much it needs; the error can be sent to other processes."""
    said = r"(disk is full|quota is used up): no room .*/new/file; it needs 2\.50 GB, and there"
    with (
        pytest.raises(DiskFull, match=said) as caught,
        replacing(tmp_path / "new/file", 25 * 10**8),
    ):
        raise error
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (str(sent), sent.filename) == (str(caught.value), str(tmp_path / "new/file"))
    assert is_disk_full(sent)
    assert not is_disk_full(OSError(errno.EACCES, "no"))


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    """A reader in the middle of a write sees the old file."""
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_folders_are_made(tmp_path: Path) -> None:
    """Parents that do not exist are made."""
    path = tmp_path / "a" / "b" / "file.json"
    write_json(path, {"ü": [1, 2]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ü": [1, 2]}


def test_what_json_cannot_say_leaves_the_old_file(tmp_path: Path) -> None:
    """An error in the middle of the document does not cut the file."""
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"a": 2, "b": torch.ones(1)})
    assert json.loads(path.read_text()) == {"a": 1}


def test_tensors_come_back(tmp_path: Path) -> None:
    """Values, types and shapes; over an older file too."""
    path = tmp_path / "x" / "t.safetensors"
    tensors = {"a": torch.arange(6).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(path, {"c": torch.zeros(1)})
    save_tensors(path, tensors)
    torch.testing.assert_close(load_file(path), tensors, rtol=0, atol=0)
    assert list(path.parent.iterdir()) == [path]


def test_sha256_is_that_of_the_whole_file(tmp_path: Path) -> None:
    """Also of a file longer than one read."""
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 500_000)
    assert sha256(path) == hashlib.sha256(b"abc" * 500_000).hexdigest()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """By the next that writes there; what a living one is writing is left alone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead, alive = child.pid, os.getpid()
    name = hidden_name(tmp_path / "plan", "tmp").name
    of_dead = tmp_path / name.replace(f"-{alive}-", f"-{dead}-")
    of_another_file = tmp_path / f".plan.json.{of_dead.name.removeprefix('.plan.')}"
    of_living = tmp_path / name
    of_dead.mkdir()
    (of_dead / "weights").write_text("half")
    of_another_file.write_text("half")
    of_living.write_text("half")
    hidden_name(tmp_path / "plan", "tmp")
    assert not of_dead.exists()
    assert of_living.exists()
    assert of_another_file.exists()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_files_are_for_whom_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    """Also those of safetensors, which by itself writes for the owner alone."""
    before = os.umask(umask)
    try:
        save_tensors(tmp_path / "tensors", {"a": torch.ones(2)})
        write_json(tmp_path / "json", {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}
