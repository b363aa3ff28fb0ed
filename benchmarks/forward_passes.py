"""What a method costs, in units of one forward pass over its calibration set.

    python benchmarks/forward_passes.py                  # 50M parameters, 32 x 512 tokens
    python benchmarks/forward_passes.py --only Wanda     # the methods whose line says so
    python benchmarks/forward_passes.py --tiny           # seconds, to see that it runs
    python benchmarks/forward_passes.py --cpu            # one thread, processor time

The unit is the model's own forward pass over the same batches (blocks only, without the head),
timed in the same process before and after the method; only ratios mean anything. Every method runs
in a process of its own, so that its memory is its own: what the process holds at its peak, less
what it held when model and batches were there and one forward pass had run. With --cpu other work
on the machine hardly shows.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import psutil
import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_prune import (
    ALPS,
    CFSP,
    FLAP,
    Bias,
    GQATaylor,
    LeastSquares,
    Magnitude,
    ResidualFit,
    SparseGPT,
    StructuredOBS,
    Wanda,
    WandaSP,
    prune,
)
from lightning_prune.evidence import CrossGram, Gram, InputNorm
from lightning_prune.methods.base import Method
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.sweep import HiddenStates, forward
from lightning_prune.sweep.waiting import Waiting

METHODS: dict[str, Callable[[], Method]] = {
    "Magnitude 50%": lambda: Magnitude(sparsity=0.5),
    "Wanda 50%": lambda: Wanda(sparsity=0.5),
    "Wanda 50%, layer": lambda: Wanda(sparsity=0.5, propagate="layer"),
    "Wanda 50%, none": lambda: Wanda(sparsity=0.5, propagate="none"),
    "Wanda 2:4": lambda: Wanda(pattern="2:4"),
    "SparseGPT 50%": lambda: SparseGPT(sparsity=0.5),
    "SparseGPT 50%, layer": lambda: SparseGPT(sparsity=0.5, propagate="layer"),
    "SparseGPT 2:4": lambda: SparseGPT(pattern="2:4"),
    "ALPS 50%": lambda: ALPS(sparsity=0.5),
    "ResidualFit 50%": lambda: ResidualFit(sparsity=0.5),
    "GQATaylor 25%, no repair": lambda: GQATaylor(ratio=0.25, repair=None),
    "WandaSP 25%, no repair": lambda: WandaSP(ratio=0.25, repair=None),
    "WandaSP 25%, Bias": lambda: WandaSP(ratio=0.25, repair=Bias()),
    "WandaSP 25%, LeastSquares(trust=0)": lambda: WandaSP(ratio=0.25, repair=LeastSquares(trust=0)),
    "WandaSP 25%": lambda: WandaSP(ratio=0.25),
    "FLAP 25%, no repair": lambda: FLAP(ratio=0.25, repair=None),
    "CFSP 25%, no repair": lambda: CFSP(ratio=0.25, repair=None),
    "StructuredOBS 25%": lambda: StructuredOBS(ratio=0.25),
}

PARTS: list[tuple[str, Any, str]] = [
    ("forward", HiddenStates, "advance"),
    ("forward", HiddenStates, "_embedded"),
    ("forward", forward, "_collect"),
    ("forward", Waiting, "_resume"),
    ("evidence", InputNorm, "update"),
    ("evidence", Gram, "update"),
    ("evidence", Gram, "result"),
    ("evidence", CrossGram, "update_pair"),
    ("solve", SparseGPT, "solve"),
    ("solve", ALPS, "solve"),
    ("solve", ResidualFit, "solve"),
    ("selection", WeightPruning, "_keep"),
]
"""Where time is spent: a name, and the function whose own time counts under it."""


clock = time.perf_counter


class Stopwatch:
    """Seconds by name; of calls inside each other, each counts its own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def _switch(self) -> None:
        now = clock()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.inside(name):
                return function(*args, **kwargs)

        return call


class PeakMemory:
    """The most memory that the process holds inside the block, beyond what it held before."""

    def __enter__(self) -> PeakMemory:
        self._process, self._done = psutil.Process(), threading.Event()
        self._before = self.peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.mebibytes = (self.peak - self._before) / 2**20


def llama(tiny: bool) -> LlamaForCausalLM:
    """A random Llama: 53M parameters, 45M of them in its blocks; or a tiny one."""
    size: dict[str, Any] = (
        {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "vocab_size": 256}
        if tiny
        else {
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 14,
            "vocab_size": 8192,
        }
    )
    torch.manual_seed(0)
    size |= {"num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 512}
    return LlamaForCausalLM(LlamaConfig(**size, tie_word_embeddings=False)).eval()


def batches_for(model: LlamaForCausalLM, options: argparse.Namespace) -> list[dict[str, Any]]:
    windows, length = (8, 64) if options.tiny else (32, 512)
    tokens = torch.randint(model.config.vocab_size, (windows, length))
    return [{"input_ids": part} for part in tokens.split(options.batch_size)]


@torch.no_grad()
def forward_pass(model: LlamaForCausalLM, batches: list[dict[str, torch.Tensor]]) -> float:
    """Seconds of the model's forward pass over all batches."""
    start = clock()
    for batch in batches:
        model.model(**batch, use_cache=False)
    return clock() - start


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one method several times in this process."""
    dense = llama(options.tiny)
    batches = batches_for(dense, options)
    forward_pass(dense, batches)
    ratios, shares, mebibytes = [], [], 0.0
    for run in range(options.runs):
        model = copy.deepcopy(dense)
        before = forward_pass(model, batches)
        watch, memory = Stopwatch(), PeakMemory()
        with ExitStack() as stack:
            for part, owner, attribute in PARTS:
                wrapped = watch.timed(part, getattr(owner, attribute))
                stack.enter_context(patch.object(owner, attribute, wrapped))
            if run == 0:  # later ones find memory that the first has left to the process
                stack.enter_context(memory)
            start = clock()
            prune(model, METHODS[name](), batches)
            seconds = clock() - start
        mebibytes = memory.mebibytes if run == 0 else mebibytes
        unit = statistics.mean([before, forward_pass(dense, batches)])
        ratios.append(seconds / unit)
        watch.seconds["rest"] = seconds - sum(watch.seconds.values())
        shares.append({part: value / unit for part, value in watch.seconds.items()})
    middle = sorted(range(len(ratios)), key=ratios.__getitem__)[len(ratios) // 2]
    return {
        "ratios": sorted(ratios),
        "median": ratios[middle],
        "parts": shares[middle],
        "mebibytes": mebibytes,
    }


def in_its_own_process(name: str) -> dict[str, Any]:
    """The same, in a new process with the same options."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def main() -> None:
    """Measure every method and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand parameters")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3, help="runs a method; the median counts")
    parser.add_argument("--only", default="", help="methods with this in their name")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--cpu", action="store_true", help="processor time of a single thread")
    options = parser.parse_args()
    if options.cpu:
        global clock
        clock = time.process_time
        torch.set_num_threads(1)
    if options.child:
        print(json.dumps(measure(options.child, options)))
        return

    parts = ("forward", "evidence", "solve", "selection", "rest")
    table = Table(title="Cost in forward passes over the calibration set")
    for column in ("method", "all", "of runs", *parts, "peak MiB"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name in METHODS:
        if options.only not in name:
            continue
        cost = in_its_own_process(name)
        table.add_row(
            name,
            f"{cost['median']:.2f}",
            f"{cost['ratios'][0]:.2f}–{cost['ratios'][-1]:.2f}",
            *(f"{cost['parts'].get(part, 0):.2f}" for part in parts),
            f"{cost['mebibytes']:.0f}",
        )
    console = Console()
    console.print(table)
    dense = llama(options.tiny)
    batches = batches_for(dense, options)
    block = sum(p.numel() * p.element_size() for p in dense.model.layers[0].parameters())
    tokens = sum(batch["input_ids"].numel() for batch in batches)
    states = tokens * dense.config.hidden_size * 4
    console.print(
        f"{tokens} tokens in batches of {options.batch_size}; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads. For scale: one block's weights {block / 2**20:.0f} "
        f"MiB, one set of hidden states {states / 2**20:.0f} MiB."
    )


if __name__ == "__main__":
    main()
