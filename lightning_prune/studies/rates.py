"""How fast this machine is at what pruning is made of: two rates, measured in a moment."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

__all__ = ["arithmetic_rate", "rates_of", "reading_rate", "seconds_of"]

SIZE = {"cpu": 1024, "cuda": 8192}
"""Rows of the matrices that are multiplied."""
READ = 2**27
"""Bytes that are read at most."""
CHUNK = 2**22
RUNS = 3


def arithmetic_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Multiplications and additions a second of a matrix product, the best of three.

    Args:
        device: where.
        dtype: of the matrices.
    """
    size = SIZE.get(device.type, 1024)
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(RUNS):
        start = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits until it is there
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def reading_rate(files: Sequence[Path]) -> float | None:
    """Bytes a second that the largest of some files is read with; None: there is nothing to read.

    Where the system allows it, pages that it has kept are let go first, so that it is the disk that
    is measured.
    """
    sizes = {path: path.stat().st_size for path in files if path.is_file()}
    if not sizes or not max(sizes.values()):
        return None
    path = max(sizes, key=lambda file: sizes[file])
    wanted = min(sizes[path], READ)
    with open(path, "rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, wanted, os.POSIX_FADV_DONTNEED)
        start, done = time.perf_counter(), 0
        while done < wanted and (chunk := file.read(CHUNK)):
            done += len(chunk)
        return done / max(time.perf_counter() - start, 1e-9)


def rates_of(
    device: torch.device,
    dtype: torch.dtype,
    files: Sequence[Path],
    operations: float | None,
    read: float | None,
) -> dict[str, float]:
    """The two rates, given or measured; without those that cannot be."""
    there = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_available())
    if operations is None and there:
        operations = arithmetic_rate(device, dtype)
    rates = {"operations": operations, "read": reading_rate(files) if read is None else read}
    return {name: rate for name, rate in rates.items() if rate}


def seconds_of(rates: Mapping[str, float], operations: float, read: int) -> dict[str, float]:
    """How long it takes at these rates, as far as they are known."""
    seconds = {}
    if "operations" in rates:
        seconds["arithmetic"] = operations / rates["operations"]
    if "read" in rates:
        seconds["reading"] = read / rates["read"]
    return seconds
