"""`lightning-prune search`: what a method's arguments do, and how its budget is best spread."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser

from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.cli.bench import Batches, Bench
from lightning_prune.cli.errors import parse_reason
from lightning_prune.cli.grid import Asked
from lightning_prune.cli.spread import search_spread
from lightning_prune.data import TextData
from lightning_prune.models import CausalLM
from lightning_prune.report.files import print_document, print_files, write
from lightning_prune.report.grid import Grid, grid_document
from lightning_prune.report.search import Spread
from lightning_prune.reuse import Reuse

__all__ = ["search"]

Spec = Mapping[str, Any]

SAMPLES = "nsamples"


def search(
    module: CausalLM,
    data: TextData,
    method: str | Spec,
    vary: Mapping[str, Sequence[Any]],
    trials: int,
    held_out: int,
    step: float,
    seed: int,
    *,
    device: torch.device,
    folder: Path,
) -> Grid | Spread:
    """Do what is not done yet, and write search.md, .csv, .json and .svg.

    Raises:
        ValueError: an argument is out of range, or the method cannot be made. What goes wrong in a
            cell or trial is written in its row instead.
    """
    if bool(vary) == bool(trials) or trials < 0:
        raise ValueError(
            "search takes vary, such as {ratio: [0.2, 0.3], nsamples: [32, 128]}, or trials, such "
            f"as 64: one of the two. Got vary={dict(vary)}, trials={trials}."
        )
    if held_out < 1 or not 0 < step <= 1:
        raise ValueError(f"held_out={held_out}, step={step}: 1 or more, and in (0, 1]")
    spec = {"class_path": method} if isinstance(method, str) else dict(method)
    if vary:
        bench = Bench(module, data, device, folder, _samples(vary, data))
        return _sensitivity(bench, _grid(spec, vary))
    made = _method(spec)
    if not isinstance(made, UnitPruning):
        raise ValueError(f"search: trials are made with methods that cut units, not {made!r}")
    bench = Bench(module, data, device, folder, data.nsamples)
    return search_spread(bench, spec, made, trials, held_out, step, seed)


def _samples(vary: Mapping[str, Sequence[Any]], data: TextData) -> int:
    counts = vary.get(SAMPLES, [data.nsamples])
    if any(not isinstance(count, int) or count < 1 for count in counts):
        raise ValueError(f"search: nsamples={list(counts)} must be whole numbers, 1 or more")
    return max(counts)


def _grid(spec: Spec, vary: Mapping[str, Sequence[Any]]) -> list[tuple[Asked, int]]:
    """The cells, all of them made and so checked, each with how many samples it calibrates on."""
    if empty := [name for name, values in vary.items() if not values]:
        raise ValueError(f"search: {empty[0]} has no values to try")
    cells = []
    for values in product(*vary.values()):
        said = [f"{name}={_short(v)}" for name, v in zip(vary, values, strict=True)]
        chosen = dict(zip(vary, values, strict=True))
        count = chosen.pop(SAMPLES, 0)
        label = ", ".join(said[:-1]) or str(spec["class_path"]).rpartition(".")[2]
        cells.append((Asked(label, said[-1], _method(_with(spec, chosen))), count))
    return cells


def _short(value: Any) -> str:
    return str(value.get("class_path")) if isinstance(value, Mapping) else str(value)


def _with(spec: Spec, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with some arguments; those of an argument are named with a dot."""
    made = copy.deepcopy(dict(spec))
    for path, value in chosen.items():
        *outer, last = path.split(".")
        inner = made
        for name in outer:
            inner = inner.setdefault("init_args", {}).setdefault(name, {})
            if not isinstance(inner, dict):
                raise ValueError(f"search: {path} needs {name} with a class_path in the method")
        inner.setdefault("init_args", {})[last] = value
    return made


def _method(spec: Spec) -> PruningCallback:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(PruningCallback, "method")
    try:
        made = parser.instantiate_classes(parser.parse_object({"method": dict(spec)})).method
    except ArgumentError as error:
        raise ValueError(f"search: {parse_reason(str(error), error)}") from error
    assert isinstance(made, PruningCallback)
    return made


def _sensitivity(bench: Bench, asked: Sequence[tuple[Asked, int]]) -> Grid:
    """Every combination of values: one table, one picture."""
    reuses: dict[int, Reuse] = {}
    dense, cells = bench.dense(), []
    for one, count in asked:
        calibration = _first(bench.calibration, count) if count else bench.calibration
        reuse = reuses.setdefault(count, Reuse())
        cells.append(bench.cell(one, calibration, bench.validation, reuse))
    settings = bench.settings()
    if any(count for _, count in asked):
        settings["calibration"] = f"calibrated on windows of {bench.data.length} tokens"
    axis = asked[0][0].target.partition("=")[0]
    grid = Grid(
        str(bench.module.path),
        dense,
        cells,
        settings,
        name="search",
        title=f"perplexity of {type(asked[0][0].method).__name__} by its arguments",
        axis=axis,
    )
    document = grid_document(grid)
    print_document(document)
    print_files(write(document, bench.folder))
    return grid


def _first(batches: Batches, count: int) -> Batches:
    """The first windows of all batches."""
    found: Batches = []
    for batch in batches:
        if count > 0:
            found.append({name: tensor[:count] for name, tensor in batch.items()})
            count -= len(found[-1]["input_ids"])
    return found
