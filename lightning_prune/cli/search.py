"""`lightning-prune search`: what a method's arguments do, and how its budget is best spread."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch.utilities import rank_zero_info

from lightning_prune.allocation.exact import meet
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.cli.distributions import HIGHEST, gone, held_out_of, moved, scored
from lightning_prune.cli.errors import parse_reason
from lightning_prune.cli.grid import Asked, Store, digest_of, done, weights_of
from lightning_prune.data import TextData
from lightning_prune.evaluation import perplexity
from lightning_prune.files import atomic_write
from lightning_prune.models import CausalLM
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from lightning_prune.provenance import fingerprint
from lightning_prune.report.grid import Cell, Grid, number, print_grid
from lightning_prune.report.search import Spread, Trial, print_spread
from lightning_prune.reuse import Reuse
from lightning_prune.version import __version__

__all__ = ["search"]

Batches = list[dict[str, torch.Tensor]]
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
        return _Bench(module, data, device, folder, _samples(vary, data)).sensitivity(
            _grid(spec, vary)
        )
    made = _method(spec)
    if not isinstance(made, UnitPruning):
        raise ValueError(f"search: trials are made with methods that cut units, not {made!r}")
    return _Bench(module, data, device, folder, data.nsamples).spread(
        spec, made, trials, held_out, step, seed
    )


# --- what is asked for ---


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


# --- the work ---


class _Bench:
    """The dense model, the texts, and what is done already."""

    def __init__(
        self, module: CausalLM, data: TextData, device: torch.device, folder: Path, samples: int
    ) -> None:
        module.load()
        data.nsamples = samples
        if module.tokenizer is not None:
            data.attach(module.tokenizer, module.max_position_embeddings)
        self.module, self.data, self.device, self.folder = module, data, device, folder
        self.calibration = list(data.calibration_dataloader())
        self.validation = list(data.val_dataloader())
        self._weights = weights_of(module.base)
        self._model = fingerprint(module.base)

    def _store(self, calibration: Batches, judge: Batches) -> Store:
        common = {
            "model": self._model,
            "calibration": digest_of(calibration),
            "validation": digest_of(judge),
            "version": __version__,
        }
        return Store(self.folder / "cells", common)

    def _dense(self) -> float:
        store = self._store(self.calibration, self.validation)
        known = store.get("dense")
        if known is None:
            value = perplexity(self.module.base, self.validation, self.device)
            known = store.put("dense", Cell("dense", "", value, 0.0, 0.0))
        assert known.perplexity is not None
        return known.perplexity

    def cell(self, asked: Asked, calibration: Batches, judge: Batches, reuse: Reuse) -> Cell:
        """One result: known, or found and kept."""
        store, call = self._store(calibration, judge), repr(asked.method)
        known = store.get(call)
        base, weights = self.module.base, self._weights
        found = known or done(asked, base, weights, calibration, judge, self.device, reuse)
        if known is None and not found.error:
            store.put(call, found)
        said = found.error or f"perplexity {number(found.perplexity)}" + ", known" * bool(known)
        rank_zero_info(f"{asked.label} {asked.target}: {said}")
        return Cell(
            asked.label,
            asked.target,
            found.perplexity,
            found.sparsity,
            found.seconds,
            found.error,
        )

    def _settings(self, validation: Batches) -> dict[str, Any]:
        device = self.device
        return {
            "window": validation[0]["input_ids"].shape[1],
            "windows": sum(len(batch["input_ids"]) for batch in validation),
            "calibration": f"calibrated on {self.data.nsamples} x {self.data.length} tokens",
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "dtype": str(self.module.base.dtype).removeprefix("torch."),
            "data": self.data.sources,
            "versions": {"torch": str(torch.__version__), "lightning_prune": __version__},
        }

    # --- arguments ---

    def sensitivity(self, asked: Sequence[tuple[Asked, int]]) -> Grid:
        """Every combination of values: one table, one picture."""
        reuses: dict[int, Reuse] = {}
        dense, cells = self._dense(), []
        for one, count in asked:
            calibration = _first(self.calibration, count) if count else self.calibration
            reuse = reuses.setdefault(count, Reuse())
            cells.append(self.cell(one, calibration, self.validation, reuse))
        settings = self._settings(self.validation)
        if any(count for _, count in asked):
            settings["calibration"] = f"calibrated on windows of {self.data.length} tokens"
        axis = asked[0][0].target.partition("=")[0]
        grid = Grid(
            str(self.module.path),
            dense,
            cells,
            settings,
            name="search",
            title=f"perplexity of {type(asked[0][0].method).__name__} by its arguments",
            axis=axis,
        )
        print_grid(grid, grid.write(self.folder))
        return grid

    # --- distributions ---

    def spread(
        self, spec: Spec, method: UnitPruning, trials: int, held_out: int, step: float, seed: int
    ) -> Spread:
        """Move budget between blocks as long as there are trials; report, and write the best."""
        base, reuse = self.module.base, Reuse()
        anatomy = Anatomy(base)
        method.check(anatomy)
        blocks = method.blocks(anatomy)
        if len(blocks) < 2:
            raise ValueError("search: budget is moved between blocks, and only one is pruned")
        seen = [*self.calibration, *self.validation]
        judge = held_out_of(self.data.train_dataloader(), seen, held_out, self.data.length)
        sizes, budget = [method.size(block) for block in blocks], method.budget(anatomy)
        given, known = self._given(method, reuse)
        uniform = [round(budget, 6)] * len(sizes)
        wished = [gone(given, method, block) for block in blocks]
        own = [round(f, 6) for f in meet(wished, budget, sizes, highest=HIGHEST)]

        def tried(name: str, fractions: list[float]) -> Trial:
            one = Asked("trial", name, scored(method, known, fractions))
            cell = self.cell(one, self.calibration, judge, reuse)
            return Trial(name, fractions, cell.perplexity, cell.error)

        done_ = [tried("uniform", uniform), tried("as given", own)]
        best = min(done_, key=lambda trial: trial.value)
        rng = random.Random(seed)
        for count in range(1, trials + 1):
            trial = tried(f"{count}", moved(best.fractions, sizes, step * budget, rng))
            done_.append(trial)
            best = min(best, trial, key=lambda one: one.value)
        if not math.isfinite(best.value):
            raise ValueError(f"search: no trial has a result; the first says: {done_[0].error}")
        final = {
            name: self.cell(
                Asked("evaluation", name, scored(method, known, fractions)),
                self.calibration,
                self.validation,
                reuse,
            ).perplexity
            for name, fractions in (
                ("uniform", uniform),
                ("as given", own),
                ("best", best.fractions),
            )
        }
        settings = self._settings(self.validation) | {"held_out": held_out, "seed": seed}
        spread = Spread(
            str(self.module.path), repr(method), self._dense(), done_, best, final, settings
        )
        files = spread.write(self.folder) | self._write_best(spec, method, known, best)
        print_spread(spread, files)
        return spread

    def _given(
        self, method: UnitPruning, reuse: Reuse
    ) -> tuple[Plan, dict[int, dict[str, torch.Tensor]]]:
        """What the method does as it is given, and its scores of the dense model."""
        first = copy.copy(method)
        first.keep_scores = True
        start = time.perf_counter()
        plan = prune(copy.deepcopy(self.module.base), first, self.calibration, self.device, reuse)
        known: dict[int, dict[str, torch.Tensor]] = {}
        for kind in plan.kinds:
            for block in plan.blocks(kind):
                known.setdefault(block, {})[kind] = plan.scores(kind, block)
        rank_zero_info(f"scored the dense model in {time.perf_counter() - start:.1f} s")
        return plan, known

    def _write_best(
        self,
        spec: Spec,
        method: UnitPruning,
        known: Mapping[int, Mapping[str, torch.Tensor]],
        best: Trial,
    ) -> dict[str, str]:
        """The plan with its weights, and the method as a configuration."""
        model = copy.deepcopy(self.module.base)
        plan = prune(model, scored(method, known, best.fractions), self.calibration, self.device)
        plan.provenance["method"] = type(method).__name__
        folder = plan.save(self.folder / "best", model)
        shares = {"class_path": "PerBlock", "init_args": {"fractions": best.fractions}}
        made = _with(spec, {"allocation": shares})
        path = self.folder / "best.yaml"
        with atomic_write(path) as file:  # JSON is YAML
            file.write("# The method with the shares that the search has found.\n")
            json.dump({"trainer": {"callbacks": [made]}}, file, indent=2)
            file.write("\n")
        return {"best.yaml": str(path), "best": str(folder)}


def _first(batches: Batches, count: int) -> Batches:
    """The first windows of all batches."""
    found: Batches = []
    for batch in batches:
        if count > 0:
            found.append({name: tensor[:count] for name, tensor in batch.items()})
            count -= len(found[-1]["input_ids"])
    return found
