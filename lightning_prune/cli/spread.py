"""`lightning-prune search` with trials: how a method's budget is best spread over the blocks."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_prune.allocation.exact import meet
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.cli.bench import Bench
from lightning_prune.cli.distributions import HIGHEST, gone, held_out_of, moved, scored
from lightning_prune.cli.grid import Asked
from lightning_prune.files import atomic_write
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from lightning_prune.report.files import print_document, print_files, write
from lightning_prune.report.search import Spread, Trial, spread_document
from lightning_prune.reuse import Reuse

__all__ = ["search_spread"]


def search_spread(
    bench: Bench,
    spec: Mapping[str, Any],
    method: UnitPruning,
    trials: int,
    held_out: int,
    step: float,
    seed: int,
) -> Spread:
    """Move budget between blocks as long as there are trials; report, and write the best."""
    base, reuse = bench.module.base, Reuse()
    anatomy = Anatomy(base)
    method.check(anatomy)
    blocks = method.blocks(anatomy)
    if len(blocks) < 2:
        raise ValueError("search: budget is moved between blocks, and only one is pruned")
    seen = [*bench.calibration, *bench.validation]
    judge = held_out_of(bench.data.train_dataloader(), seen, held_out, bench.data.length)
    sizes, budget = [method.size(block) for block in blocks], method.budget(anatomy)
    given, known = _given(bench, method, reuse)
    uniform = [round(budget, 6)] * len(sizes)
    wished = [gone(given, method, block) for block in blocks]
    own = [round(f, 6) for f in meet(wished, budget, sizes, highest=HIGHEST)]

    def tried(name: str, fractions: list[float]) -> Trial:
        one = Asked("trial", name, scored(method, known, fractions))
        cell = bench.cell(one, bench.calibration, judge, reuse)
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
        name: bench.cell(
            Asked("evaluation", name, scored(method, known, fractions)),
            bench.calibration,
            bench.validation,
            reuse,
        ).perplexity
        for name, fractions in (
            ("uniform", uniform),
            ("as given", own),
            ("best", best.fractions),
        )
    }
    settings = bench.settings() | {"held_out": held_out, "seed": seed}
    spread = Spread(
        str(bench.module.path), repr(method), bench.dense(), done_, best, final, settings
    )
    document = spread_document(spread)
    print_document(document)
    files = write(document, bench.folder) | _write_best(bench, spec, method, known, best)
    print_files(files)
    return spread


def _given(
    bench: Bench, method: UnitPruning, reuse: Reuse
) -> tuple[Plan, dict[int, dict[str, torch.Tensor]]]:
    """What the method does as it is given, and its scores of the dense model."""
    first = copy.copy(method)
    first.keep_scores = True
    start = time.perf_counter()
    plan = prune(copy.deepcopy(bench.module.base), first, bench.calibration, bench.device, reuse)
    known: dict[int, dict[str, torch.Tensor]] = {}
    for kind in plan.kinds:
        for block in plan.blocks(kind):
            known.setdefault(block, {})[kind] = plan.scores(kind, block)
    rank_zero_info(f"scored the dense model in {time.perf_counter() - start:.1f} s")
    return plan, known


def _write_best(
    bench: Bench,
    spec: Mapping[str, Any],
    method: UnitPruning,
    known: Mapping[int, Mapping[str, torch.Tensor]],
    best: Trial,
) -> dict[str, str]:
    """The plan with its weights, and the method as a configuration."""
    model = copy.deepcopy(bench.module.base)
    plan = prune(model, scored(method, known, best.fractions), bench.calibration, bench.device)
    plan.provenance["method"] = type(method).__name__
    folder = plan.save(bench.folder / "best", model)
    made = copy.deepcopy(dict(spec))
    shares = {"class_path": "PerBlock", "init_args": {"fractions": best.fractions}}
    made.setdefault("init_args", {})["allocation"] = shares
    path = bench.folder / "best.yaml"
    with atomic_write(path) as file:  # JSON is YAML
        file.write("# The method with the shares that the search has found.\n")
        json.dump({"trainer": {"callbacks": [made]}}, file, indent=2)
        file.write("\n")
    return {"best.yaml": str(path), "best": str(folder)}
