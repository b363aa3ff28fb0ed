"""Kill -9 at random moments: whether the same call then goes on to the same bytes.

    python benchmarks/kills.py                       # twenty moments of every case
    python benchmarks/kills.py --moments 5 --methods "Wanda(sparsity=0.5)"

The quickstart model is pruned in a process of its own and saved, once in peace, and then again and
again: each time it is killed at a moment that is drawn at random between its start and its end,
started again, and what it leaves is compared, file by file. In memory, and in its files, where
hidden states are files too. Linux.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import lightning_prune
from lightning_prune.parsing import import_public_names

METHODS = {
    "masks": "Wanda(sparsity=0.5)",
    "masks, an allocation by a sweep of its own": "Wanda(sparsity=0.5, allocation=OWL())",
    "masks, and weights corrected": "SparseGPT(sparsity=0.5)",
    "two sweeps side by side": "ResidualFit(sparsity=0.5)",
    "masks by gradients, across the model": "WeightSNIP(sparsity=0.5)",
    "cuts, repaired": "FLAP(ratio=0.3, repair=LeastSquares())",
    "cuts in the order of their loss": "StructuredOBS(ratio=0.3)",
    "cuts by gradients, repaired": "GQATaylor(ratio=0.3, repair=LeastSquares())",
}
QUICKSTART = Path(lightning_prune.__file__).parent / "quickstart"
FORK = multiprocessing.get_context("fork")


def work(folder: Path, call: str, placement: Any, out: str) -> None:
    """Prune the model and save it, with whatever is kept of an earlier start."""
    with (folder / "log").open("w") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    (folder / "temporary").mkdir(exist_ok=True)
    tempfile.tempdir = str(folder / "temporary")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 500, (4, 2, 128), generator=generator)
    method = eval(call, vars(lightning_prune))
    changes = folder / "changes" if placement == "checkpoint" else None
    if placement == "checkpoint":
        method.offload = "disk"
    model = lightning_prune.load(QUICKSTART, placement=placement, changes=changes, verify=False)
    batches = [{"input_ids": window} for window in ids]
    plan = lightning_prune.prune(model, method, batches, resume=folder / "unfinished")
    lightning_prune.save(model, folder / out, plan)
    del model


def started(*arguments: Any) -> Any:
    """A process that works, with nothing to import."""
    process = FORK.Process(target=work, args=arguments)
    process.start()
    return process


def finish(folder: Path, *arguments: Any) -> None:
    """Let a process work until it is done."""
    process = started(folder, *arguments)
    process.join()
    if process.exitcode:
        raise RuntimeError((folder / "log").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def try_case(call: str, placement: str, moments: int, seed: int) -> dict[str, int]:
    """Kill and go on; how often it ran still, had finished steps, and came to the same."""
    counts = {"killed": 0, "went on": 0, "same": 0, "clean": 0}
    with tempfile.TemporaryDirectory() as name:
        folder, drawn = Path(name), random.Random(f"{seed} {call} {placement}")
        begun = time.monotonic()
        finish(folder, call, placement, "whole")
        seconds = time.monotonic() - begun
        whole = contents(folder / "whole")
        for _ in range(moments):
            process = started(folder, call, placement, "again")
            process.join(timeout=drawn.uniform(0, seconds))
            counts["killed"] += process.is_alive()
            process.kill()
            process.join()
            counts["went on"] += any(folder.glob("unfinished/*.json"))
            finish(folder, call, placement, "again")
            counts["same"] += contents(folder / "again") == whole
            left = {path.name for path in folder.iterdir()} - {"whole", "again", "temporary", "log"}
            counts["clean"] += not left and not any((folder / "temporary").iterdir())
            for path in (folder / "again").iterdir():
                path.unlink()
    return counts


def main() -> None:
    """Print a line for each case, and how often all was well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=list(METHODS.values()))
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    import_public_names()
    table = Table("method", "weights", "killed", "had finished steps", "same bytes", "nothing left")
    kills = wrong = 0
    for call in args.methods:
        for placement in ("memory", "checkpoint"):
            counts = try_case(call, placement, args.moments, args.seed)
            table.add_row(call, placement, *map(str, counts.values()))
            print(f"{call}, {placement}: {counts}", flush=True)
            kills += counts["killed"]
            wrong += 2 * args.moments - counts["same"] - counts["clean"]
    Console(width=120).print(table)
    print(f"{kills} kills in {len(args.methods) * 2} cases; {wrong} times something was wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
