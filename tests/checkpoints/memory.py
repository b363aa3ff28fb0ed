"""Reads and writes a model folder in several ways, and prints how much memory each of them took.

    python memory.py FOLDER OUT

Run in a process of its own.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from lightning_prune.analysis.similarity import compare_masks
from lightning_prune.analysis.zeros import sparsity
from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.checkpoints.writer import ShardWriter
from lightning_prune.export.hf import to_hf

SHARD = 8_500_000
FOLDER, OUT = map(Path, sys.argv[1:])


def read() -> None:
    """Every number of every tensor."""
    reader = TensorReader(FOLDER)
    for name in reader.info:
        reader.tensor(name).sum()


def rows() -> None:
    """Two rows of every tensor, all of them held."""
    reader = TensorReader(FOLDER)
    held = [reader.rows(name, 5, 7) for name in reader.info]
    assert all(part.isfinite().all() for part in held)


def write() -> None:
    """Every tensor, into shards."""
    reader = TensorReader(FOLDER)
    with ShardWriter(OUT / "written", SHARD) as writer:
        for name in reader.info:
            writer.add(name, reader.tensor(name))


def convert() -> None:
    """The folder as another one, of another type, in shards."""
    to_hf(FOLDER, OUT / "converted", "bfloat16", SHARD, verify=False)


def count() -> None:
    """The zeros of the folder."""
    sparsity(FOLDER)


def compare() -> None:
    """The masks of the folder with those of what was converted."""
    compare_masks({"a": FOLDER, "b": OUT / "converted"})


def resident(kind: str) -> int:
    """Bytes of this process: VmRSS, or RssAnon, which leaves out what is mapped from files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def taken(work: Callable[[], None], kind: str) -> int:
    """The most bytes that were there during some work, less those before it."""
    start = resident(kind)
    seen, done = [start], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(resident(kind))

    thread = threading.Thread(target=watch)
    thread.start()
    work()
    done.set()
    thread.join()
    return max(seen) - start


if __name__ == "__main__":
    most = {work.__name__: taken(work, "VmRSS") for work in (read, rows, write)}
    most |= {work.__name__: taken(work, "RssAnon") for work in (convert, count, compare)}
    (OUT / "taken.json").write_text(json.dumps(most), encoding="utf-8")
