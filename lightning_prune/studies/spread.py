"""How the budget of a method that cuts units is best spread over the blocks."""

from __future__ import annotations

import copy
import math
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_prune.allocation.exact import meet
from lightning_prune.anatomy import Anatomy
from lightning_prune.methods.base import Scores
from lightning_prune.methods.known_scores import KnownScores
from lightning_prune.methods.units import UnitPruning
from lightning_prune.models import CausalLM
from lightning_prune.pipeline import prune
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.plan import Plan
from lightning_prune.report.files import write
from lightning_prune.report.grid import Cell
from lightning_prune.report.search import Spread, Trial, spread_document
from lightning_prune.studies.bench import Asked, Batches, Bench
from lightning_prune.studies.distributions import (
    HIGHEST,
    held_out_of,
    moved,
    removed_share,
    with_shares,
)
from lightning_prune.studies.specs import Spec, make

__all__ = ["BestShares", "search_shares"]


@dataclass
class BestShares:
    """What a search has found.

    Attributes:
        spread: all trials, the best of them, and what the validation text says in the end.
        method: the method with the best shares.
        plan: what it decides.
        model: a copy of the model, pruned so.
    """

    spread: Spread
    method: UnitPruning
    plan: Plan
    model: nn.Module

    @property
    def fractions(self) -> list[float]:
        """What is removed of each block."""
        return self.spread.best.fractions

    def write(self, folder: str | Path) -> dict[str, str]:
        """Write the figures and the plan, as `best`, into a folder; returns paths by name."""
        files = write(spread_document(self.spread), folder)
        return files | {"best": str(self.plan.save(Path(folder) / "best", self.model))}


def search_shares(
    module: CausalLM,
    data: Any,
    method: Spec,
    trials: int,
    *,
    held_out: int = 64,
    step: float = 0.3,
    seed: int = 0,
    device: torch.device | str | None = None,
    journal: str | Path | None = None,
    windows: int | None = None,
) -> BestShares:
    """Move budget between blocks, and keep what lowers the perplexity on held-out training text.

    ```python
    best = search_shares(CausalLM("quickstart"), TextData(length=128), FLAP(ratio=0.3), trials=64)
    best.write("runs/search")
    ```

    It starts from the better of two distributions: the same share for all blocks, and the method's
    own allocation. The model is scored once. Trials are compared window by window: one wins by more
    than the standard error of the difference, or not at all.

    Args:
        module: the model.
        data: a data module with calibration, training and validation batches.
        method: a method that cuts units, with its budget; or, as in a configuration, a mapping of
            class_path and init_args.
        trials: how many times budget is moved.
        held_out: windows of training text that trials are judged by; they share no passage with
            the calibration and validation windows.
        step: how much is moved at most, in parts of the budget of a block.
        seed: of the trials.
        device: where blocks run; None: where the model is.
        journal: a folder in which the results are kept: what is there is not computed again.
        windows: perplexity is of so many validation windows at most; None: of all of them.

    Raises:
        ValueError: an argument is out of range, the method cuts no units, the model has but one
            block that is pruned, the training text is too short, or no trial has a result.
    """
    for name, value in (("trials", trials), ("held_out", held_out)):
        if value < 1:
            raise ValueError(f"search: {name}={value}; give 1 or more")
    if not 0 < step <= 1:
        raise ValueError(f"search: step={step} is not in (0, 1]")
    cutting = _made(method)
    search = _Search(Bench(module, data, device, journal, windows), cutting, held_out)
    best = search.run(trials, step, random.Random(seed))
    final = {
        name: search.judged("evaluation", name, fractions, search.bench.validation).perplexity
        for name, fractions in (
            ("uniform", search.uniform),
            ("as given", search.given),
            ("best", best.fractions),
        )
    }
    settings = search.bench.settings() | {"held_out": held_out, "seed": seed}
    dense, name = search.bench.dense(), search.bench.name
    spread = Spread(name, repr(cutting), dense, search.trials, best, final, settings)
    return search.applied(spread)


def _made(spec: Spec) -> UnitPruning:
    try:
        method: UnitPruning = make(spec, UnitPruning, "methods that cut units")
    except ValueError as error:
        raise ValueError(f"search: {error}") from error
    return method


class _Search:
    """Trials of one method on one model."""

    def __init__(self, bench: Bench, method: UnitPruning, held_out: int) -> None:
        self.bench, self.method = bench, method
        anatomy = Anatomy(bench.module.base)
        method.check(anatomy)
        blocks = method.blocks(anatomy)
        if len(blocks) < 2:
            raise ValueError("search: budget is moved between blocks, and only one is pruned")
        seen = [*bench.calibration, *bench.validation]
        self._judge = held_out_of(bench.data.train_dataloader(), seen, held_out, bench.length)
        self._reuse = Reuse()
        self.sizes, self.budget = [method.size(block) for block in blocks], method.budget(anatomy)
        plan = self._scored_plan()
        self._scores: Scores = {
            block.index: {k: plan.scores(k, block.index) for k in method.kinds_of(block)}
            for block in blocks
        }
        wished = [removed_share(plan, method, block) for block in blocks]
        self.uniform = [round(self.budget, 6)] * len(blocks)
        fractions = meet(wished, self.budget, self.sizes, high=HIGHEST)
        self.given = [round(fraction, 6) for fraction in fractions]
        self.trials: list[Trial] = []

    def run(self, trials: int, step: float, rng: random.Random) -> Trial:
        """The best of the two distributions to begin with, and of so many that come of the best."""
        for name, fractions in (("uniform", self.uniform), ("as given", self.given)):
            self._try(name, fractions)
        uniform, as_given = self.trials
        best = as_given if as_given.value < uniform.value else uniform
        for count in range(1, trials + 1):
            trial = self._try(
                f"{count}", moved(best.fractions, self.sizes, step * self.budget, rng)
            )
            best = trial if trial.beats(best) else best
        if not math.isfinite(best.value):
            first = self.trials[0].error
            raise ValueError(f"search: no trial has a result; the first says: {first}")
        return best

    def judged(self, label: str, name: str, fractions: list[float], judge: Batches) -> Cell:
        """What comes of these shares, or why nothing does."""
        scored = KnownScores.of(with_shares(self.method, fractions), self._scores)
        return self.bench.cell(Asked(label, name, scored), self._reuse, judge=judge)

    def applied(self, spread: Spread) -> BestShares:
        """The best shares, with a copy of the model that is pruned so."""
        method, model = with_shares(self.method, spread.best.fractions), self._copy()
        scored = KnownScores.of(method, self._scores)
        plan = prune(model, scored, self.bench.calibration, self.bench.device)
        plan.provenance["method"] = type(method).__name__
        return BestShares(spread, method, plan, model)

    def _try(self, name: str, fractions: list[float]) -> Trial:
        cell = self.judged("trial", name, fractions, self._judge)
        trial = Trial(name, fractions, cell.perplexity, cell.error, cell.losses)
        self.trials.append(trial)
        return trial

    def _scored_plan(self) -> Plan:
        """What the method does as it is given, with its scores of the dense model."""
        scoring = replace(self.method, keep_scores=True)
        start = time.perf_counter()
        bench = self.bench
        plan = prune(self._copy(), scoring, bench.calibration, bench.device, self._reuse)
        rank_zero_info(f"scored the dense model in {time.perf_counter() - start:.1f} s")
        return plan

    def _copy(self) -> nn.Module:
        return copy.deepcopy(self.bench.module.base)
