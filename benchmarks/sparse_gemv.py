"""What products with inputs of zero cost on a GPU: against dense ones, and against 2:4 weights.

    python benchmarks/sparse_gemv.py                # one GPU, under four minutes, no network
    python benchmarks/sparse_gemv.py --cpu          # tiny shapes, by the way that the CPU has

Where there is no GPU it prints what it would measure, with bytes and limits alone. For each shape
(Llama-3-8B's, and odd ones), type, number of rows and sparsity:

    zeros      share of the inputs that is zero, counted
    read       share of the columns that some row needs, and so of the weight that is read
    dense, sparse, 2:4
               microseconds of one product
    x          dense over sparse
    limit      what x could be: bytes of the dense product over those of the sparse one, each moved
               at the memory's full speed
    of memory  bytes that the sparse product needs, over its time and the speed of a copy, measured

Each way is one CUDA graph that goes through as many copies of the weight as are four times the L2
cache, so that each product finds it cold; launches and the work around are the same for all.
The best of several replays counts. The weight of the 2:4 product keeps two of four at random.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from lightning_prune.kernels import without_small
from lightning_prune.kernels.columns import sum_of_columns
from lightning_prune.kernels.layout import column_major
from lightning_prune.kernels.reference import is_small

SHAPES = {
    "q, o": (4096, 4096),
    "k, v": (1024, 4096),
    "gate, up": (14336, 4096),
    "down": (4096, 14336),
    "odd": (4093, 11007),
    "odd, narrow": (1021, 4099),
}
"""Outputs and inputs: Llama-3-8B's, and what unit pruning may leave."""
TINY = {"tiny": (96, 64), "tiny, odd": (33, 65)}
SPARSITIES = (0.0, 0.4, 0.5, 0.6, 0.7)
MEMORIES = {"H100 SXM": 3.35e12, "H200": 4.8e12}
"""Bytes a second that the makers give."""
REPLAYS = 5

Product = Callable[[torch.Tensor], torch.Tensor]
"""From a weight to what comes out."""


@dataclass
class Case:
    """One product, and what was measured of it; seconds, None where it was not."""

    site: str
    outputs: int
    inputs: int
    rows: int
    dtype: str
    asked: float
    zeros: float
    read: float
    dense: float | None = None
    sparse: float | None = None
    two_of_four: float | None = None
    error: float | None = None

    @property
    def bytes_dense(self) -> float:
        """That a dense product has to move: weight, inputs, outputs."""
        size = getattr(torch, self.dtype).itemsize
        around = self.rows * (self.inputs + self.outputs)
        return float(size * (self.outputs * self.inputs + around))

    @property
    def bytes_sparse(self) -> float:
        """The same without the columns that no row needs."""
        size = getattr(torch, self.dtype).itemsize
        return self.bytes_dense - size * self.outputs * self.inputs * (1 - self.read)

    @property
    def limit(self) -> float:
        """Dense over sparse, where memory alone counts."""
        return self.bytes_dense / self.bytes_sparse


def cases(cpu: bool) -> Iterator[tuple[Case, torch.Tensor, float]]:
    """Each case, with inputs whose zeros are counted, and its threshold."""
    generator = torch.Generator().manual_seed(0)
    for dtype in ("float32",) if cpu else ("float16", "bfloat16"):
        for rows in (1, 4):
            for site, (outputs, inputs) in (TINY if cpu else SHAPES).items():
                input_BI = torch.randn(rows, inputs, generator=generator)
                for asked in SPARSITIES:
                    if asked != 0.5 and (rows > 1 or dtype == "bfloat16"):
                        continue
                    x_BI = input_BI.to(getattr(torch, dtype))
                    threshold = float(x_BI.float().abs().quantile(asked)) if asked else 0.0
                    small_BI = is_small(x_BI, threshold)
                    shares = (
                        float(small_BI.float().mean()),
                        float((~small_BI).any(0).float().mean()),
                    )
                    yield Case(site, outputs, inputs, rows, dtype, asked, *shares), x_BI, threshold


def copies_of(weight_OI: torch.Tensor) -> list[torch.Tensor]:
    """So many that all together are four times what the cache holds."""
    cache = torch.cuda.get_device_properties(weight_OI.device).L2_cache_size
    return [weight_OI.clone() for _ in range(4 * cache // weight_OI.nbytes + 2)]


def graph_seconds(product: Product, weights: Sequence[torch.Tensor]) -> float:
    """Of one product, in a graph of one for each weight; the best replay."""
    for weight in weights[:3]:  # what is chosen or compiled by a first call
        product(weight)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for weight in weights:
            product(weight)
    seconds = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3 / len(weights))
    return min(seconds[1:])


def cpu_seconds(product: Product, weights: Sequence[torch.Tensor]) -> float:
    """Of one product, the best of several."""
    seconds = []
    for _ in range(REPLAYS):
        start = time.perf_counter()
        product(weights[0])
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def two_of_four(weight_OI: torch.Tensor) -> torch.Tensor:
    """A weight with two of every four kept, as torch's semi-structured tensor."""
    from torch.sparse import to_sparse_semi_structured

    keep = torch.rand_like(weight_OI.float()).unflatten(1, (-1, 4)).argsort(dim=-1) < 2
    return to_sparse_semi_structured(weight_OI * keep.flatten(1))


def measure(case: Case, input_BI: torch.Tensor, threshold: float, device: torch.device) -> None:
    """Fill in what one case takes."""
    input_BI = input_BI.to(device)
    weight_OI = torch.randn(case.outputs, case.inputs, device=device).to(input_BI.dtype)
    zeroed_BI = without_small(input_BI, threshold)
    on_gpu = device.type == "cuda"
    timed = graph_seconds if on_gpu else cpu_seconds

    def dense(weight_OI: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(zeroed_BI, weight_OI)

    def sparse(weight_OI: torch.Tensor) -> torch.Tensor:
        if on_gpu:
            from lightning_prune.kernels.gemv import sparse_gemv

            return sparse_gemv(input_BI, weight_OI, threshold, sparsity=case.asked)
        return sum_of_columns(input_BI, is_small(input_BI, threshold), weight_OI)

    expected = zeroed_BI.float() @ weight_OI.float().T
    by_columns = column_major(weight_OI)
    case.error = float((sparse(by_columns).float() - expected).abs().max() / expected.abs().max())
    weights = copies_of(weight_OI) if on_gpu else [weight_OI]
    case.dense = timed(dense, weights)
    if on_gpu and case.asked == 0.5:
        try:
            case.two_of_four = timed(dense, [two_of_four(weight) for weight in weights])
        except (RuntimeError, ValueError, NotImplementedError) as error:
            print(f"2:4, {case.site}: {str(error).splitlines()[0]}")
    case.sparse = timed(sparse, [column_major(weight) for weight in weights])


def copy_speed(device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy."""
    source = torch.empty(2**30 if device.type == "cuda" else 2**22, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(REPLAYS):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def show(found: Sequence[Case], speed: float | None) -> None:
    """One row a case."""
    table = Table(title="Products with inputs of zero; microseconds, one product")
    columns = ("site", "O x I", "rows", "type", "zeros", "read", "MB dense", "MB sparse", "limit")
    measured = ("dense", "sparse", "x", "2:4", "of memory", "error")
    at_best = tuple(f"us, {name}" for name in MEMORIES)
    for name in (*columns, *(measured if speed else at_best)):
        table.add_column(name, justify="left" if name == "site" else "right")
    for c in found:
        row = [c.site, f"{c.outputs} x {c.inputs}", str(c.rows), c.dtype, f"{c.zeros:.1%}"]
        row += [f"{c.read:.1%}", *(f"{b / 1e6:.1f}" for b in (c.bytes_dense, c.bytes_sparse))]
        row += [f"{c.limit:.2f}"]
        if speed and c.dense and c.sparse:
            row += [f"{1e6 * c.dense:.1f}", f"{1e6 * c.sparse:.1f}", f"{c.dense / c.sparse:.2f}"]
            row += ["-" if c.two_of_four is None else f"{1e6 * c.two_of_four:.1f}"]
            row += [f"{c.bytes_sparse / c.sparse / speed:.0%}", f"{c.error:.1e}"]
        elif not speed:
            row += [f"{1e6 * c.bytes_sparse / memory:.1f}" for memory in MEMORIES.values()]
        table.add_row(*row)
    Console(width=150).print(table)


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--minutes", type=float, default=3.5, help="no case starts after so long")
    parser.add_argument("--out", default="sparse_gemv.json", help="file for the figures")
    options = parser.parse_args()
    start = time.perf_counter()
    if not options.cpu and not torch.cuda.is_available():
        print("torch finds no CUDA device. It would measure this; at best memory alone counts:")
        show([case for case, _, _ in cases(cpu=False)], None)
        return
    device = torch.device("cpu" if options.cpu else "cuda")
    card = "cpu" if options.cpu else torch.cuda.get_device_name(device)
    speed = copy_speed(device)
    print(f"{card}, torch {torch.__version__}, copies at {speed / 1e12:.2f} TB/s")
    found = []
    for case, input_BI, threshold in cases(options.cpu):
        if time.perf_counter() - start > 60 * options.minutes:
            print(f"no time for {case.site}, {case.rows} rows, {case.dtype}, {case.asked:.0%}")
            continue
        with torch.no_grad():
            measure(case, input_BI, threshold, device)
        found.append(case)
        results = [asdict(one) | {"limit": one.limit} for one in found]
        value = {"card": card, "torch": torch.__version__, "copy": speed, "cases": results}
        Path(options.out).write_text(json.dumps(value, indent=2))
    show(found, speed)
    print(f"{time.perf_counter() - start:.0f} s; figures in {options.out}")


if __name__ == "__main__":
    main()
