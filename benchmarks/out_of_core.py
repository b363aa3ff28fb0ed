"""How much memory pruning takes where the model stays in its files, and how much where it is read.

    python benchmarks/out_of_core.py                              # 8, 16, 32 small blocks
    python benchmarks/out_of_core.py --blocks 32 --hidden 4096 --mlp 14336 --heads 32 --kv 8 \\
        --vocabulary 128256 --dtype bfloat16 --placements checkpoint  # Llama-3-8B's shapes, 45 GB

Models are random, and are written one tensor at a time. Every pruning runs in a process of its own.
What counts is the process's own memory at its peak (RssAnon: without pages of files, which the
system takes back when it needs them), less what it held when all was imported. Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import peak_memory, write_llama
from rich.console import Console
from rich.table import Table

import lightning_prune
from lightning_prune.parsing import import_public_names


def measure(folder: str, placement: Any, args: argparse.Namespace) -> dict[str, float]:
    """Peak in MiB, and the processor's seconds, of loading, pruning and saving."""
    import_public_names()
    generator = torch.Generator().manual_seed(1)
    size = (args.windows, 1, args.length)
    ids = torch.randint(args.vocabulary, size, generator=generator)
    method = eval(args.method, vars(lightning_prune))
    begun = time.process_time()
    with peak_memory() as peak:
        model = lightning_prune.load(folder, placement=placement, verify=False)
        plan = lightning_prune.prune(model, method, [{"input_ids": window} for window in ids])
        lightning_prune.save(model, f"{folder}-{placement}", plan, shard_size="500MB")
    return {"MiB": peak.bytes / 2**20, "seconds": time.process_time() - begun}


def main() -> None:
    """Print a table, a line for each number of blocks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, nargs="+", default=[8, 16, 32])
    for name, default in {
        "hidden": 512,
        "mlp": 1024,
        "heads": 8,
        "kv": 4,
        "vocabulary": 64,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--method", default="Wanda(sparsity=0.5)")
    parser.add_argument("--placements", nargs="+", default=["checkpoint", "memory"])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], args.one[1], args)))
        return
    columns = [f"{what}, {place}" for place in args.placements for what in ("MiB", "seconds")]
    table = Table("blocks", "model, MiB", *columns)
    with tempfile.TemporaryDirectory() as folder:
        for blocks in args.blocks:
            path = Path(folder, str(blocks))
            shape = {
                "hidden_size": args.hidden,
                "intermediate_size": args.mlp,
                "num_hidden_layers": blocks,
                "num_attention_heads": args.heads,
                "num_key_value_heads": args.kv,
                "vocab_size": args.vocabulary,
            }
            write_llama(path, args.dtype, **shape)
            size = sum(file.stat().st_size for file in path.glob("*.safetensors")) / 2**20
            row = [str(blocks), f"{size:.0f}"]
            for place in args.placements:
                call = [sys.executable, *sys.argv, "--one", str(path), place]
                said = subprocess.run(call, stdout=subprocess.PIPE, check=True, text=True).stdout
                row += [f"{value:.0f}" for value in json.loads(said.splitlines()[-1]).values()]
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
