"""Whether the package does on a GPU what it does on the CPU, and what pruning costs there.

    python benchmarks/gpu.py                        # one GPU, at most ten minutes, no network
    python benchmarks/gpu.py --model SMOLLM2        # a folder, in place of random weights
    python benchmarks/gpu.py --cpu                  # tiny shapes, to see that it runs

Runs the tests marked gpu, then prunes two models by five methods: SmolLM2-135M (128 × 512 tokens)
and random weights of Llama-3-8B's shapes (bf16, 128 × 2048 tokens, as many of its blocks as
`--blocks` says). For each method it prints

    seconds    of `prune`, device synchronised
    passes     seconds over those of one forward pass of the blocks over the calibration set
    limit      floating-point operations done, over seconds and the card's own matrix product rate,
               measured here
    device     peak memory of the device, beyond what it held before
    host       peak memory of the process, beyond what it held before
    moved      bytes copied between host and device

Operations and copies are counted on the first block alone, in a run of their own, and multiplied:
counting slows a run down.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from counting import Operations, Peak, copied_bytes, product_rate, synchronised
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lightning_prune import FLAP, GQATaylor, ResidualFit, SparseGPT, Wanda, prune
from lightning_prune.anatomy import Anatomy
from lightning_prune.methods.base import Method
from lightning_prune.sweep import HiddenStates, InMemory, evaluating

METHODS: dict[str, Callable[..., Method]] = {
    "Wanda 50%": lambda **more: Wanda(sparsity=0.5, **more),
    "SparseGPT 50%": lambda **more: SparseGPT(sparsity=0.5, **more),
    "GQATaylor 25%, no repair": lambda **more: GQATaylor(ratio=0.25, repair=None, **more),
    "FLAP 25% + LeastSquares": lambda **more: FLAP(ratio=0.25, **more),
    "ResidualFit 50%": lambda **more: ResidualFit(sparsity=0.5, **more),
}

LLAMA3_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "rope_theta": 500000.0,
}
SMOLLM2: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "num_hidden_layers": 30,
    "tie_word_embeddings": True,
}
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "num_hidden_layers": 3,
}

Batches = list[dict[str, torch.Tensor]]


def random_llama(
    shape: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> LlamaForCausalLM:
    """Random weights on the CPU, made on the device, which is quicker at it."""
    torch.manual_seed(0)
    config = LlamaConfig(**shape, max_position_embeddings=4096)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    nn.Module.to(model, dtype)
    model.to_empty(device=device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    model.tie_weights()
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config)
    return model.cpu().eval()


def batches_of(vocabulary: int, windows: int, length: int, size: int) -> Batches:
    """Random tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (windows, length), generator=generator)
    return [{"input_ids": part} for part in tokens.split(size)]


@torch.no_grad()
def forward_seconds(model: LlamaForCausalLM, batches: Batches, device: torch.device) -> float:
    """Of one forward pass of the blocks over all batches, blocks moved to the device and back."""
    anatomy = Anatomy(model)
    with evaluating(model):
        states = HiddenStates(anatomy, batches, InMemory(anatomy, device))
        start = synchronised(device)
        with states.from_start():
            for block in anatomy.blocks:
                with states.placement.block(block):
                    states.advance(block)
            return synchronised(device) - start


def measure(
    name: str, dense: LlamaForCausalLM, batches: Batches, device: torch.device, rate: float
) -> dict[str, float]:
    """One method: a run that is timed, and runs over one block in which is counted."""
    blocks = len(Anatomy(dense).blocks)
    unit = forward_seconds(dense, batches, device)
    model = copy.deepcopy(dense)
    with Peak(device) as peak:
        start = synchronised(device)
        prune(model, METHODS[name](), batches, device)
        seconds = synchronised(device) - start
    del model
    few = batches[: max(1, len(batches) // 8)]
    with Operations() as operations:
        prune(copy.deepcopy(dense), METHODS[name](layer_end=1), few, device)
    copied = copy.deepcopy(dense)
    moved = copied_bytes(lambda: prune(copied, METHODS[name](layer_end=1), few, device), device)
    done = operations.total * blocks * len(batches) / len(few)
    return {
        "seconds": seconds,
        "passes": seconds / unit,
        "limit": done / seconds / rate,
        "device": peak.on_device / 2**30,
        "host": peak.host / 2**30,
        "moved": moved * blocks / 2**30,
    }


def run_tests() -> str:
    """The last line of the tests marked gpu."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]


def show(title: str, results: dict[str, dict[str, float]]) -> None:
    """A table, one row a method."""
    table = Table(title=title)
    for column in ("method", "seconds", "passes", "limit", "device GiB", "host GiB", "moved GiB"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, row in results.items():
        table.add_row(
            name,
            f"{row['seconds']:.2f}",
            f"{row['passes']:.2f}",
            f"{row['limit']:.0%}",
            *(f"{row[column]:.2f}" for column in ("device", "host", "moved")),
        )
    Console().print(table)


def main() -> None:
    """Test, measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--model", help="folder of SmolLM2-135M; random weights of its shape if none"
    )
    parser.add_argument("--blocks", type=int, default=8, help="of the 32 of Llama-3-8B")
    parser.add_argument("--minutes", type=float, default=9.0, help="no method starts after so long")
    parser.add_argument("--cpu", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--no_tests", action="store_true", help="leave the tests out")
    parser.add_argument("--out", default="gpu.json", help="file for the figures")
    options = parser.parse_args()
    device = torch.device("cpu" if options.cpu else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; --cpu shows with tiny shapes that it runs")
    start = time.perf_counter()
    dtype = torch.float32 if options.cpu else torch.bfloat16
    card = "cpu" if options.cpu else torch.cuda.get_device_name(device)
    rate = product_rate(device, dtype)
    results: dict[str, Any] = {"card": card, "torch": torch.__version__, "rate": rate}
    print(f"{card}, torch {torch.__version__}, {rate / 1e12:.1f} Tflop/s in {dtype}")
    if not options.no_tests:
        results["tests"] = run_tests()
        print(f"tests marked gpu: {results['tests']}")
    eight: dict[str, Any] = LLAMA3_8B | {"num_hidden_layers": options.blocks}
    shapes: list[tuple[str, dict[str, Any], int, int]] = [
        (
            "SmolLM2-135M",
            TINY if options.cpu else SMOLLM2,
            *((4, 32) if options.cpu else (128, 512)),
        ),
        (f"Llama-3-8B, {options.blocks} blocks", TINY if options.cpu else eight, 128, 2048),
    ]
    for title, shape, windows, length in shapes[:1] if options.cpu else shapes:
        if title == "SmolLM2-135M" and options.model:
            dense = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).eval()
        else:
            dense = random_llama(shape, dtype, device)
        batches = batches_of(dense.config.vocab_size, windows, length, 8)
        rows = results.setdefault(title, {})
        for name in METHODS:
            if time.perf_counter() - start < 60 * options.minutes:
                try:
                    rows[name] = measure(name, dense, batches, device, rate)
                except RuntimeError:  # out of memory, perhaps: the others are measured still
                    traceback.print_exc()
                Path(options.out).write_text(json.dumps(results, indent=2))
        show(f"{title}, {windows} × {length} tokens, {str(dtype).removeprefix('torch.')}", rows)
        del dense
    print(f"{time.perf_counter() - start:.0f} s; figures in {options.out}")


if __name__ == "__main__":
    main()
