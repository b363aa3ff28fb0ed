"""What `plan_resources` says of memory, beside what pruning takes.

    python benchmarks/resources.py                        # random Llamas of four shapes
    python benchmarks/resources.py --model FOLDER --windows 8 --length 256 \\
        --methods "Wanda(sparsity=0.5)"                   # a model of one's own
    python benchmarks/resources.py --tiny                 # seconds, to see that it runs

Every pruning runs on the CPU, in a process of its own: the model is loaded, pruned, with finished
blocks kept on the disk, and saved. What counts is the process's own memory at its peak (RssAnon:
without pages of files), less what it held when all was imported. Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import peak_memory, write_llama
from rich.console import Console
from rich.table import Table

import lightning_prune
from lightning_prune import CausalLM, TextData
from lightning_prune.parsing import import_public_names
from lightning_prune.studies.resources import STARTED, plan_resources

SHAPES = {
    "A": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 16},
    "B": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 8},
    "C": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8},
    "D": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16},
}
TINY = {"T": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}}
METHODS = (
    "Wanda(sparsity=0.5)",
    "SparseGPT(sparsity=0.5)",
    "FLAP(ratio=0.25)",
    "Taylor(ratio=0.25, repair=None)",
)
VOCABULARY = 1024
SHARED = {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": VOCABULARY}


def method_of(call: str) -> Any:
    """The method of a call such as "Wanda(sparsity=0.5)"."""
    return eval(call, vars(lightning_prune))


def planned(folder: str, placement: Any, call: str, args: argparse.Namespace) -> tuple[int, str]:
    """Bytes beyond the libraries, and in which part of the work."""
    data = TextData(nsamples=args.windows, length=args.length, batch_size=args.batch)
    module = CausalLM(folder, placement=placement)
    resources = plan_resources(module, data, method_of(call), operations=1.0, read=1.0)
    fullest = max(resources.phases, key=lambda phase: sum(phase.host.values()))
    return resources.peak_host - resources.libraries + STARTED, fullest.name


def measure(folder: str, placement: Any, call: str, args: argparse.Namespace) -> int:
    """Bytes beyond what the process held before it loaded the model."""
    import_public_names()
    shape = (args.windows, args.length)
    ids = torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(1))
    batches = [{"input_ids": part} for part in ids.split(args.batch)]
    method = method_of(call)
    with peak_memory() as peak, tempfile.TemporaryDirectory() as out:
        model = lightning_prune.load(folder, placement=placement, verify=False)
        plan = lightning_prune.prune(model, method, batches, resume=f"{out}/unfinished")
        lightning_prune.save(model, f"{out}/pruned", plan)
    return peak.bytes


def rows(folder: str, name: str, args: argparse.Namespace) -> Sequence[tuple[str, ...]]:
    """A line for each method and placement."""
    lines = []
    for call in args.methods:
        for placement in args.placements:
            own = [sys.executable, *sys.argv, "--one", folder, placement, call]
            done = subprocess.run(own, stdout=subprocess.PIPE, check=True, text=True)
            said = json.loads(done.stdout.splitlines()[-1])
            before, after = said["planned"] / 2**20, said["measured"] / 2**20
            line = (name, call, placement, f"{before:.0f}", f"{after:.0f}", f"{before / after:.2f}")
            print("|", " | ".join((*line, said["part"])), "|", file=sys.stderr, flush=True)
            lines.append((*line, said["part"]))
    return lines


def main() -> None:
    """Print a table, a line for each model, method and placement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a Hugging Face folder; else random Llamas")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--placements", nargs="*", default=["memory", "checkpoint"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one:
        folder, placement, call = args.one
        measured = measure(folder, placement, call, args)
        size, part = planned(folder, placement, call, args)
        print(json.dumps({"planned": size, "measured": measured, "part": part}))
        return
    table = Table("model", "method", "weights in", "planned, MiB", "measured, MiB", "ratio", "part")
    with tempfile.TemporaryDirectory() as scratch:
        shapes = TINY if args.tiny else {name: SHAPES[name] for name in args.shapes}
        models = {"": args.model} if args.model else {}
        for name, shape in {} if args.model else shapes.items():
            models[name] = str(Path(scratch, name))
            write_llama(Path(models[name]), args.dtype, **SHARED, **shape)
        for name, folder in models.items():
            for line in rows(folder, name or Path(folder).name, args):
                table.add_row(*line)
    Console().print(table)


if __name__ == "__main__":
    main()
