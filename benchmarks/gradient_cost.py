"""What gradients cost, in units of one plain forward and backward pass over the same samples.

    python benchmarks/gradient_cost.py                  # 53M parameters, 16 x 512 tokens
    python benchmarks/gradient_cost.py --only relevance --memory
    python benchmarks/gradient_cost.py --tiny           # seconds, to see that it runs

The unit is `model(**batch, labels=...).loss.backward()` of transformers, weights requiring
gradients, over the same batches, before and after every method in the same process; only ratios
mean anything. Processor time of a single thread counts, so that other work on the machine hardly
shows. "sweep" is the gradient sweep alone; "method" is all until the model is cut, with no repair.
With --memory: what each takes at its peak beyond model and batches, in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from forward_passes import batches_for, llama
from measuring import peak_memory
from rich.console import Console
from rich.table import Table
from torch import nn

from lightning_prune import AFR, SNIP, GQATaylor, ReFer, Taylor, prune
from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import Feature, Gradients, Relevance
from lightning_prune.evidence.objective import FeatureKind
from lightning_prune.methods.base import Method
from lightning_prune.sweep import HiddenStates, InMemory
from lightning_prune.sweep.backward import gradient_sweep

Batches = list[dict[str, torch.Tensor]]

CPU = torch.device("cpu")


def plain(model: nn.Module, batches: Batches) -> None:
    """Gradients of the mean loss, as a training step takes them."""
    model.requires_grad_()
    for batch in batches:
        (model(**batch, labels=batch["input_ids"], use_cache=False).loss / len(batches)).backward()
    model.zero_grad()


def sweep(
    model: nn.Module,
    batches: Batches,
    whole: bool | None = None,
    evidence: Gradients = Gradients(),  # noqa: B008
) -> None:
    """The evidence of all weights."""
    model.requires_grad_(False)
    anatomy = Anatomy(model)
    states = HiddenStates(anatomy, batches, InMemory(anatomy, CPU))
    for _ in gradient_sweep(states, evidence, anatomy.blocks, whole=whole):
        pass


def features(kind: FeatureKind) -> Gradients:
    """Of the size of the features."""
    return Gradients(objective=Feature(kind=kind))


def method(model: nn.Module, batches: Batches, made: Method) -> None:
    """Everything until a copy of the model is cut; the copy is not made here."""
    prune(model, made, batches)


WAYS: dict[str, Callable[[nn.Module, Batches], None]] = {
    "sweep, whole model": sweep,
    "sweep, block by block": lambda m, b: sweep(m, b, whole=False),
    "sweep with squares": lambda m, b: sweep(m, b, evidence=Gradients(squares=True)),
    "sweep, Frobenius features": lambda m, b: sweep(m, b, evidence=features("frobenius")),
    "sweep, nuclear features": lambda m, b: sweep(m, b, evidence=features("nuclear")),
    "relevance, whole model": lambda m, b: sweep(m, b, evidence=Relevance()),
    "relevance, block by block": lambda m, b: sweep(m, b, False, Relevance()),
    "method GQATaylor": lambda m, b: method(m, b, GQATaylor(ratio=0.25, repair=None)),
    "method SNIP": lambda m, b: method(m, b, SNIP(ratio=0.25, repair=None)),
    "method Taylor param_mix": lambda m, b: method(
        m, b, Taylor(ratio=0.25, mode="param_mix", repair=None)
    ),
    "method ReFer": lambda m, b: method(m, b, ReFer(ratio=0.25, repair=None)),
    "method AFR, of two objectives": lambda m, b: method(m, b, AFR(ratio=0.25, repair=None)),
}


def seconds(run: Callable[[nn.Module, Batches], None], dense: nn.Module, batches: Batches) -> float:
    """Processor seconds of one run on a copy of the model."""
    model = copy.deepcopy(dense)
    start = time.process_time()
    run(model, batches)
    return time.process_time() - start


def peak(name: str | None, tiny: bool, batch_size: int, windows: int) -> int:
    """Bytes that a way takes at its peak; None: a plain pass. To be called in a new process."""
    torch.set_num_threads(1)
    model = llama(tiny)
    batches = batches_for(model, argparse.Namespace(tiny=tiny, batch_size=batch_size))
    with peak_memory() as measured:
        (plain if name is None else WAYS[name])(model, batches[: windows // batch_size])
    return measured.bytes


def peaks(names: list[str | None], options: argparse.Namespace) -> list[float]:
    """Of each, in megabytes."""
    fresh: dict[str, Any] = {"mp_context": get_context("spawn"), "max_tasks_per_child": 1}
    with ProcessPoolExecutor(1, **fresh) as pool:
        how = (options.tiny, options.batch_size, options.windows)
        return [pool.submit(peak, name, *how).result() / 1e6 for name in names]


def main() -> None:
    """Measure every way and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand parameters")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--windows", type=int, default=16, help="how many of them")
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the median counts")
    parser.add_argument("--only", default="", help="ways with this in their name")
    parser.add_argument("--memory", action="store_true", help="peaks in place of times")
    options = parser.parse_args()
    if options.memory:
        names = [None, *(name for name in WAYS if options.only in name)]
        for name, size in zip(names, peaks(names, options), strict=True):
            print(f"{name or 'plain forward and backward'}: {size:,.0f} MB")
        return
    torch.set_num_threads(1)
    dense = llama(options.tiny)
    batches = batches_for(dense, options)[: options.windows // options.batch_size]
    seconds(plain, dense, batches)

    table = Table(title="Cost in plain forward and backward passes over the calibration set")
    for column in ("", "median", "of runs"):
        table.add_column(column, justify="right" if column else "left")
    for name, run in WAYS.items():
        if options.only not in name:
            continue
        ratios = []
        for _ in range(options.runs):
            units = [seconds(plain, dense, batches)]
            measured = seconds(run, dense, batches)
            units.append(seconds(plain, dense, batches))
            ratios.append(measured / statistics.mean(units))
        table.add_row(
            name, f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}–{max(ratios):.2f}"
        )
    console = Console()
    console.print(table)
    tokens = sum(batch["input_ids"].numel() for batch in batches)
    console.print(
        f"{tokens} tokens in batches of {options.batch_size}, torch {torch.__version__}, processor "
        "time of one thread."
    )


if __name__ == "__main__":
    main()
