"""Reads or writes weights in a process of its own, and prints the most memory that it took.

python memory.py read FILE           every tensor of a file
python memory.py rows FILE           a few rows of each
python memory.py count FOLDER        the zeros of a folder
python memory.py write FILE OUT      a file into shards of 8 MB
python memory.py convert FOLDER OUT  a folder into another one in bfloat16, in shards of 8 MB
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from lightning_prune.analysis.zeros import sparsity
from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.checkpoints.writer import ShardWriter
from lightning_prune.export.hf import to_hf

SHARD = 8_000_000


def resident(kind: str) -> int:
    """Bytes of this process: VmRSS, or RssAnon, which leaves out what is mapped from files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def read(file: str) -> None:
    reader = TensorReader(file)
    for name in reader.info:
        reader.tensor(name).sum()


def rows(file: str) -> None:
    reader = TensorReader(file)
    held = [reader.rows(name, 5, 7) for name in reader.info]
    assert all(part.sum() != 0 for part in held)


def write(file: str, out: str) -> None:
    reader = TensorReader(file)
    with ShardWriter(out, SHARD) as writer:
        for name in reader.info:
            writer.add(name, reader.tensor(name))


def count(folder: str) -> None:
    sparsity(folder)


def convert(folder: str, out: str) -> None:
    to_hf(folder, out, "bfloat16", SHARD, verify=False)


WORK = {work.__name__: work for work in (read, rows, write, count, convert)}

if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    kind = "RssAnon" if name == "convert" else "VmRSS"
    start = peak = resident(kind)
    done = threading.Event()

    def watch() -> None:
        global peak
        while not done.wait(0.001):
            peak = max(peak, resident(kind))

    thread = threading.Thread(target=watch)
    thread.start()
    WORK[name](*paths)
    done.set()
    thread.join()
    sys.stdout.write(f"{peak - start}\n")
