"""How much memory and time a method takes on the CPU, in units of the model and its forward pass.

    python benchmarks/memory.py --model FOLDER --text TEXT     # 16 x 512 tokens, fp32
    python benchmarks/memory.py --only Taylor AFR              # methods whose line has one of these
    python benchmarks/memory.py --windows 2 --length 32        # seconds, to see that it runs

Every method runs in a process of its own. What counts is what the process holds at its peak, less
what it held when all was imported and nothing loaded: 1.0 is the model alone. Seconds are the
processor's, of one thread; passes are those seconds in units of the blocks' forward pass over the
same text, which is timed in the same process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from lightning_prune import (
    AFR,
    ALPS,
    CFSP,
    FLAP,
    RIA,
    SNIP,
    CausalLM,
    DropBlocks,
    GQATaylor,
    Magnitude,
    ReFer,
    ResidualFit,
    Sensitivity,
    SparseGPT,
    StructuredOBS,
    Taylor,
    TextData,
    Wanda,
    WandaSP,
    prune,
    prune_in_rounds,
)
from lightning_prune.methods.base import Method
from lightning_prune.parsing import import_public_names
from lightning_prune.pipeline.recovery import Recovery
from lightning_prune.pipeline.rounds import Gate

METHODS: dict[str, Callable[[], Method]] = {
    "Magnitude 50%": lambda: Magnitude(sparsity=0.5),
    "Wanda 50%": lambda: Wanda(sparsity=0.5),
    "Wanda 50%, layer": lambda: Wanda(sparsity=0.5, propagate="layer"),
    "RIA 50%": lambda: RIA(sparsity=0.5),
    "SparseGPT 50%": lambda: SparseGPT(sparsity=0.5),
    "ResidualFit 50%": lambda: ResidualFit(sparsity=0.5),
    "ResidualFit 50%, Sensitivity": lambda: ResidualFit(sparsity=0.5, allocation=Sensitivity()),
    "ALPS 50%": lambda: ALPS(sparsity=0.5),
    "WandaSP 25%": lambda: WandaSP(ratio=0.25),
    "FLAP 25%": lambda: FLAP(ratio=0.25),
    "CFSP 25%": lambda: CFSP(ratio=0.25),
    "StructuredOBS 25%": lambda: StructuredOBS(ratio=0.25),
    "Taylor 25%": lambda: Taylor(ratio=0.25),
    "GQATaylor 25%": lambda: GQATaylor(ratio=0.25),
    "SNIP 25%": lambda: SNIP(ratio=0.25),
    "ReFer 25%": lambda: ReFer(ratio=0.25),
    "AFR 25%": lambda: AFR(ratio=0.25),
    "DropBlocks, 4": lambda: DropBlocks(count=4),
}
ROUNDS: dict[str, int] = {"FLAP 25%, in 2 rounds": 0, "FLAP 25%, in 2 rounds, trained": 2}
"""Steps of training after each round. Both can go back to the model before a round."""
SHOWN = {"peak": 1, "seconds": 0, "passes": 1}
"""What is printed, and with how many digits."""
Batch = dict[str, torch.Tensor]


class Peak:
    """The most that this process holds, looked at every five milliseconds."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.bytes = 0

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self.bytes = max(self.bytes, self._process.memory_info().rss)
            time.sleep(0.005)


def measure(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Peak over the model's size, seconds, and seconds over those of a forward pass."""
    import_public_names()
    before = psutil.Process().memory_info().rss
    module = CausalLM(args.model, dtype=args.dtype)
    module.load()
    model = module.base
    data = TextData(args.text, nsamples=args.windows, length=args.length, batch_size=args.batch)
    assert module.tokenizer is not None
    data.attach(module.tokenizer, module.max_position_embeddings, module.vocabulary)
    batches = list(data.calibration_dataloader())
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    forward_pass(model, [{"input_ids": batches[0]["input_ids"][:1]}])  # warms up
    forward = seconds_of(lambda: forward_pass(model, batches))
    with Peak() as peak:
        seconds = seconds_of(lambda: pruned(name, model, batches))
    return {
        "peak": (peak.bytes - before) / size,
        "seconds": seconds,
        "passes": seconds / forward,
    }


def pruned(name: str, model: nn.Module, batches: list[Batch]) -> None:
    """Prune the model by one of the methods."""
    if name in METHODS:
        prune(model, METHODS[name](), batches)
        return
    steps = ROUNDS[name]
    recovery = Recovery(steps, batches) if steps else None
    gate = Gate(max_increase=1e9)
    prune_in_rounds(model, FLAP(ratio=0.25), batches, 2, batches[:1], gate, recovery)


@torch.no_grad()
def forward_pass(model: Any, batches: list[Batch]) -> None:
    """Run all text through the model, but for its head."""
    for batch in batches:
        model.base_model(input_ids=batch["input_ids"], use_cache=False)


def seconds_of(work: Callable[[], None]) -> float:
    """The processor's seconds; what else runs on the machine hardly shows."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="quickstart")
    parser.add_argument("--text", default="builtin")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", nargs="*", default=[""])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one:
        print(json.dumps(measure(args.one, args)))
        return
    table = Table("method", "peak, in models", "seconds", "forward passes")
    for name in (*METHODS, *ROUNDS):
        if not any(part in name for part in args.only):
            continue
        done = subprocess.run(
            [sys.executable, *sys.argv, "--one", name], stdout=subprocess.PIPE, text=True
        )
        result = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
        row = ["failed", "", ""]
        if result:
            row = [f"{result[key]:.{digits}f}" for key, digits in SHOWN.items()]
        print(f"| {name} | {' | '.join(row)} |", file=sys.stderr, flush=True)
        table.add_row(name, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
