"""Perplexity of a pruned model, by method, over several drawings of the calibration text.

    python benchmarks/quality.py --model FOLDER --text TEXT --dtype bfloat16
    python benchmarks/quality.py --only Wanda SparseGPT --targets 0.5 2:4
    python benchmarks/quality.py --units   # cut off, in place of weights set to zero
    python benchmarks/quality.py --seeds 0 --nsamples 8 --length 64 --windows 4   # to see it run

A cell has the mean over the seeds, each of which draws other calibration windows, and their spread
(lowest to highest). The floor is the model that gives every token its frequency in the calibration
text, whatever comes before: what is worse than that has forgotten all context. With --journal a run
that was stopped goes on. No training follows.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lightning_prune import CausalLM, TextData, sweep_methods
from lightning_prune.report.grid import Grid
from lightning_prune.studies.bench import Batches
from lightning_prune.studies.specs import Spec


def named(name: str, method: str, **settings: Any) -> Spec:
    return {"name": name, "class_path": method, "init_args": settings}


SPARSITIES, RATIOS = ["0.5", "0.6", "0.7", "2:4", "4:8"], ["0.125", "0.25", "0.375", "0.5"]
SENSITIVITY = {"class_path": "Sensitivity"}
BLOCK_FIT = {"class_path": "BlockFit"}
TO_THE_END = {"class_path": "BlockFit", "init_args": {"target": "logits"}}
WEIGHTS: dict[str, Spec] = {
    spec["name"]: spec  # type: ignore[index]
    for spec in (
        named("Magnitude", "Magnitude"),
        named("Wanda", "Wanda"),
        named("Wanda, tokens clipped", "Wanda", token_weight="clipped"),
        named("Wanda, tokens equal", "Wanda", token_weight="equal"),
        named("Wanda + Sensitivity", "Wanda", allocation=SENSITIVITY),
        named("Wanda + BlockFit", "Wanda", block_fit=BLOCK_FIT),
        named("SparseGPT", "SparseGPT"),
        named("SparseGPT, tokens clipped", "SparseGPT", token_weight="clipped"),
        named("SparseGPT, tokens equal", "SparseGPT", token_weight="equal"),
        named("SparseGPT + Sensitivity", "SparseGPT", allocation=SENSITIVITY),
        named("SparseGPT + BlockFit", "SparseGPT", block_fit=BLOCK_FIT),
        named("ALPS", "ALPS"),
        named("ResidualFit", "ResidualFit"),
        named("ResidualFit, tokens clipped", "ResidualFit", token_weight="clipped"),
        named("ResidualFit + Sensitivity", "ResidualFit", allocation=SENSITIVITY),
        named("ResidualFit + BlockFit", "ResidualFit", block_fit=BLOCK_FIT),
        *(
            named(f"{name} + BlockFit to the logits", name, block_fit=TO_THE_END)
            for name in ("Wanda", "SparseGPT", "ResidualFit")
        ),
    )
}
CUTTING = {name: name for name in ("FLAP", "CFSP", "AFR", "GQATaylor", "StructuredOBS")}
REPAIRS: dict[str, dict[str, Any]] = {
    ", no repair": {"repair": None},
    "": {},
    " + BlockFit": {"block_fit": BLOCK_FIT},
    " + BlockFit to the logits": {"block_fit": TO_THE_END},
}
UNITS: dict[str, Spec] = {
    f"{name}{suffix}": named(f"{name}{suffix}", method, **settings)
    for name, method in {"LLM-Pruner": "Taylor", **CUTTING}.items()
    for suffix, settings in REPAIRS.items()
}


def unigram_perplexity(calibration: Batches, validation: Batches, vocabulary: int) -> float:
    """Of tokens predicted by their frequency in the calibration text, each counted once more."""
    counts_V = torch.ones(vocabulary, dtype=torch.float64)
    for batch in calibration:
        counts_V += batch["input_ids"].flatten().bincount(minlength=vocabulary)
    predicted = torch.cat([batch["input_ids"][:, 1:].flatten() for batch in validation])
    return float((-(counts_V / counts_V.sum()).log()[predicted].mean()).exp())


def cell(grids: Sequence[Grid], method: str, target: str) -> str:
    """The mean over the drawings, and their spread."""
    cells = [grid.cell(method, target) for grid in grids]
    values = [cell.perplexity for cell in cells if cell and cell.perplexity is not None]
    if not values:
        return cells[0].error.partition(".")[0] if cells[0] else ""
    mean = sum(values) / len(values)
    return f"{mean:.2f}" + f" ({min(values):.2f}-{max(values):.2f})" * (len(values) > 1)


def seconds(grids: Sequence[Grid], method: str, target: str) -> str:
    """That pruning took, on average."""
    cells = [grid.cell(method, target) for grid in grids]
    values = [cell.seconds for cell in cells if cell and cell.seconds is not None]
    return f"{sum(values) / len(values):.0f}" if values else ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="quickstart")
    parser.add_argument(
        "--text", default="builtin", help="a source with training and validation text"
    )
    parser.add_argument("--nsamples", type=int, default=16, help="calibration windows")
    parser.add_argument("--length", type=int, default=512, help="tokens in a window")
    parser.add_argument("--batch-size", type=int, default=4, help="calibration windows at once")
    parser.add_argument("--windows", type=int, default=24, help="validation windows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--units", action="store_true", help="methods that cut units off")
    parser.add_argument("--targets", nargs="+", help="shares of zeros, patterns, or ratios")
    parser.add_argument("--dtype", default="float32", help="that the model is held in")
    parser.add_argument("--only", nargs="+", default=[""], help="methods with one of these words")
    parser.add_argument("--journal", help="a folder for results; they are not computed again")
    asked = parser.parse_args(arguments)
    every, usual = (UNITS, RATIOS) if asked.units else (WEIGHTS, SPARSITIES)
    methods: Mapping[str, Spec] = {
        name: spec for name, spec in every.items() if any(word in name for word in asked.only)
    }
    module, grids, floors = CausalLM(asked.model, dtype=asked.dtype), [], []
    for seed in asked.seeds:
        data = TextData(
            asked.text,
            nsamples=asked.nsamples,
            length=asked.length,
            batch_size=asked.batch_size,
            seed=seed,
        )
        more = {"journal": asked.journal and f"{asked.journal}/{seed}", "windows": asked.windows}
        wanted = asked.targets or usual
        grids.append(sweep_methods(module, data, list(methods.values()), wanted, **more))
        texts = list(data.calibration_dataloader()), list(data.val_dataloader())
        floors.append(unigram_perplexity(*texts, module.base.config.vocab_size))
    targets = grids[0].targets
    table = Table(*["method", *targets, f"seconds, {targets[0]}"])
    for name in methods:
        row = [cell(grids, name, target) for target in targets]
        table.add_row(name, *row, seconds(grids, name, targets[0]))
    console = Console()
    console.print(
        f"{asked.model}: perplexity of {asked.windows} windows of {asked.length} tokens, dense "
        f"{grids[0].dense:.2f}, floor {sum(floors) / len(floors):.0f}; calibrated on "
        f"{asked.nsamples} windows of {asked.length}, seeds {asked.seeds}"
    )
    console.print(table)


if __name__ == "__main__":
    main()
