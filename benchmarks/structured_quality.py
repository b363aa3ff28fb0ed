"""Perplexity of every structured score under every repair, at several sizes.

    python benchmarks/structured_quality.py                       # the quickstart model
    python benchmarks/structured_quality.py --model PATH --train TRAIN.txt --valid VALID.txt
    python benchmarks/structured_quality.py --ratios 0.3 --only FLAP

Ratio is the fraction of the parameters of attention and MLP that goes; a method that removes
neurons only removes so many more of them. The first tables have one score a row and one repair a
column, with the score's own allocation. The last ones compare methods as their authors publish them
with recipes of this package. No training follows.
"""

from __future__ import annotations

import argparse
import copy
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_prune import (
    AFR,
    CFSP,
    FLAP,
    SNIP,
    Bias,
    CausalLM,
    GlobalStandardised,
    GQATaylor,
    LeastSquares,
    MagnitudeSP,
    ReFer,
    StructuredOBS,
    Taylor,
    TextData,
    Uniform,
    WandaSP,
    prune,
)
from lightning_prune.anatomy import Anatomy
from lightning_prune.evaluation import perplexity
from lightning_prune.methods.units import UnitPruning
from lightning_prune.repair import Repair

Make = Callable[..., UnitPruning]

SCORES: dict[str, Make] = {
    "Magnitude": MagnitudeSP,
    "Wanda-sp": WandaSP,
    "FLAP": FLAP,
    "CFSP, neurons": CFSP,
    "SNIP": SNIP,
    "ReFer": ReFer,
    "AFR": AFR,
    "Taylor, vectorize": lambda **settings: Taylor(mode="vectorize", **settings),
    "Taylor, first order": GQATaylor,
    "Taylor, mixed": lambda **settings: Taylor(mode="param_mix", **settings),
    "StructuredOBS": StructuredOBS,
}
REPAIRS: tuple[Repair | None, ...] = (None, Bias(), LeastSquares(trust=0), LeastSquares())

PUBLISHED: dict[str, tuple[Make, dict[str, Any]]] = {
    "Wanda-sp": (WandaSP, {"repair": None, "allocation": Uniform()}),
    "FLAP": (FLAP, {"repair": Bias()}),
    "GQA-aware Taylor": (GQATaylor, {"repair": None}),
    "AFR, neurons": (AFR, {"repair": None, "attention": False}),
    "SNIP, neurons": (SNIP, {"repair": None, "attention": False}),
    "CFSP, neurons": (CFSP, {"repair": None}),
}
RECIPES: dict[str, tuple[Make, dict[str, Any]]] = {
    f"{name}, {allocation!r}": (make, {"allocation": allocation})
    for name, make in (("Wanda-sp", WandaSP), ("FLAP", FLAP), ("StructuredOBS", StructuredOBS))
    for allocation in (Uniform(), GlobalStandardised(), GlobalStandardised(standardise=False))
}


class Bench:
    """A model, its text, and the perplexity of pruned copies of it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        module = CausalLM(arguments.model, dtype="float32")
        module.load()
        data = TextData(
            arguments.train,
            validation=arguments.valid,
            nsamples=arguments.nsamples,
            length=arguments.length,
            batch_size=16,
        )
        assert module.tokenizer is not None, "a model folder with a tokenizer"
        data.attach(module.tokenizer, module.max_position_embeddings)
        self.model = module.base
        self.calibration = list(data.calibration_dataloader())
        self.validation = list(data.val_dataloader())[: -(-arguments.windows // 16)]
        self.dense = perplexity(self.model, self.validation)
        self.total = sum(parameter.numel() for parameter in self.model.parameters())
        self.units = sum(
            block.units(kind) * block.unit_size(kind)
            for block in Anatomy(self.model).blocks
            for kind in ("group", "neuron")
        )

    def pruned(self, make: Make, ratio: float, **settings: Any) -> float | None:
        """The perplexity, or None where the method cannot do it."""
        model = copy.deepcopy(self.model)
        left = self.total - round(ratio * self.units)
        try:
            with redirect_stderr(io.StringIO()):
                prune(model, make(parameters=left, **settings), self.calibration)
        except ValueError:
            return None
        return perplexity(model, self.validation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="quickstart")
    parser.add_argument("--train", default="builtin", help="text to calibrate on")
    parser.add_argument("--valid", help="text to measure on; default: the rest of --train")
    parser.add_argument("--nsamples", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--windows", type=int, default=128, help="validation windows")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.2, 0.3, 0.5])
    parser.add_argument("--only", help="scores whose name holds this")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    scores = {n: m for n, m in SCORES.items() if (arguments.only or "") in n}
    console = Console()
    console.print(f"{arguments.model}: dense perplexity {bench.dense:.2f}")
    for ratio in arguments.ratios:
        rows = {
            name: [bench.pruned(make, ratio=ratio, repair=repair) for repair in REPAIRS]
            for name, make in scores.items()
        }
        heads = ("none", "bias", "least squares, layer", "least squares")
        console.print(table(f"{ratio:.0%} removed, by repair", heads, rows))
    if arguments.only:
        return
    for title, methods in (("as published", PUBLISHED), ("recipes", RECIPES)):
        rows = {
            name: [bench.pruned(make, ratio=ratio, **more) for ratio in arguments.ratios]
            for name, (make, more) in methods.items()
        }
        console.print(table(title, [f"{ratio:.0%}" for ratio in arguments.ratios], rows))


def table(title: str, heads: Sequence[str], rows: dict[str, list[float | None]]) -> Table:
    """One row a method, the lowest of each column bold."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    made.add_column("")
    for head in heads:
        made.add_column(head, justify="right")
    columns = list(zip(*rows.values(), strict=True))
    best = [min((v for v in column if v is not None), default=None) for column in columns]
    for name, values in rows.items():
        cells = ["-" if value is None else f"{value:.2f}" for value in values]
        bold = [v == b and v is not None for v, b in zip(values, best, strict=True)]
        made.add_row(name, *(f"[bold]{c}[/]" if b else c for c, b in zip(cells, bold, strict=True)))
    return made


if __name__ == "__main__":
    main()
