"""What this machine is asked to do with files."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lightning_prune.machine import read_ahead

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")


def resident(tensor: torch.Tensor) -> float:
    """The share of a mapped tensor's pages that are in memory."""
    first = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    length = tensor.data_ptr() + tensor.nbytes - first
    pages = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(first), ctypes.c_size_t(length), pages) == 0
    return sum(page & 1 for page in pages) / len(pages)


def test_files_are_read_before_they_are_looked_at(tmp_path: Path) -> None:
    """In the background; what is no file is left alone."""
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.ones(2**21)}, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with safe_open(path, "pt") as stored:
        weight = stored.get_tensor("weight")
    read_ahead([weight, torch.ones(3), torch.empty(0), torch.empty(2, device="meta")])
    until = time.monotonic() + 20
    while resident(weight) < 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert resident(weight) == 1
