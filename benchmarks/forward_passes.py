"""What a method costs, in units of one forward pass over its calibration set.

    python benchmarks/forward_passes.py            # 50M parameters, 32 x 512 tokens
    python benchmarks/forward_passes.py --tiny     # a few seconds, to see that it runs

The unit is the model's own forward pass over the same batches (blocks only, without the head),
timed in the same process before and after the method; only ratios mean anything. Memory is what
the process holds at its peak beyond the model, sampled while the method runs.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_prune import GQATaylor, Magnitude, Wanda, prune
from lightning_prune.method import Method

METHODS: dict[str, Callable[[], Method]] = {
    "Magnitude 50%": lambda: Magnitude(sparsity=0.5),
    "Wanda 50%": lambda: Wanda(sparsity=0.5),
    "Wanda 2:4": lambda: Wanda(pattern="2:4"),
    "GQATaylor 25%": lambda: GQATaylor(ratio=0.25),
}


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


@torch.no_grad()
def forward_pass(model: LlamaForCausalLM, batches: list[dict[str, torch.Tensor]]) -> float:
    """Seconds of the model's forward pass over all batches."""
    start = time.perf_counter()
    for batch in batches:
        model.model(**batch, use_cache=False)
    return time.perf_counter() - start


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


def main() -> None:
    """Time every method and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand parameters")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3, help="runs a method; the median counts")
    options = parser.parse_args()
    windows, length = (8, 64) if options.tiny else (32, 512)

    dense = llama(options.tiny)
    tokens = torch.randint(dense.config.vocab_size, (windows, length))
    batches = [{"input_ids": part} for part in tokens.split(options.batch_size)]
    block = sum(p.numel() * p.element_size() for p in dense.model.layers[0].parameters())
    states = tokens.numel() * dense.config.hidden_size * 4
    table = Table(title=f"{windows} x {length} tokens, batches of {options.batch_size}")
    for column in ("method", "forward passes", "of these", "peak MiB beyond the model"):
        table.add_column(column, justify="left" if column == "method" else "right")
    forward_pass(dense, batches)
    for name, make in METHODS.items():
        ratios, memory = [], 0.0
        for _ in range(options.runs):
            model = copy.deepcopy(dense)
            before = forward_pass(model, batches)
            with PeakMemory() as peak:
                start = time.perf_counter()
                prune(model, make(), batches)
                seconds = time.perf_counter() - start
            ratios.append(seconds / statistics.mean([before, forward_pass(dense, batches)]))
            memory = max(memory, peak.mebibytes)
        spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
        table.add_row(name, f"{statistics.median(ratios):.2f}", spread, f"{memory:.0f}")
    console = Console()
    console.print(table)
    console.print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads. For scale: one block's "
        f"weights {block / 2**20:.0f} MiB, one set of hidden states {states / 2**20:.0f} MiB."
    )


if __name__ == "__main__":
    main()
