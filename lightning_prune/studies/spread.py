"""How the budget of a method is best spread over the blocks, or over their parts."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_prune.allocation import Allocation
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.checks import check_choice
from lightning_prune.evaluation import window_losses
from lightning_prune.models import CausalLM
from lightning_prune.pipeline import prune
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.plan import Plan
from lightning_prune.report.files import write
from lightning_prune.report.numbers import perplexity_text
from lightning_prune.report.search import Attempt, Spread, Trial, spread_document
from lightning_prune.studies.bench import Batches, Bench, digest_of
from lightning_prune.studies.evolution import Evolution
from lightning_prune.studies.held_out import held_out_of
from lightning_prune.studies.slots import Per, Prunes, Slots, share_grid
from lightning_prune.studies.specs import Spec, make
from lightning_prune.studies.stitching import Stitching
from lightning_prune.tokens import IGNORED

__all__ = ["BestShares", "search_shares"]


@dataclass
class BestShares:
    """What a search has found.

    Attributes:
        spread: all that was tried, the best of it, and what the validation text says in the end.
        method: the method with the best shares; as it was given, where no others are better.
        plan: what it decides.
        model: a copy of the model, pruned so.
    """

    spread: Spread
    method: Prunes
    plan: Plan
    model: nn.Module

    @property
    def fractions(self) -> list[float]:
        """What is removed of each block, part or Linear; `spread.slots` has their names."""
        return list(self.spread.best.fractions)

    @property
    def allocation(self) -> Allocation:
        """What gives the method its shares."""
        return self.method.effective_allocation

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
    per: Per = "block",
    step: float = 0.25,
    children: int = 16,
    stages: Sequence[int] = (4, 16),
    held_out: int = 64,
    seed: int = 0,
    device: torch.device | str | None = None,
    journal: str | Path | None = None,
    windows: int | None = None,
) -> BestShares:
    """Search the shares that leave the model's output nearest to the dense model's.

    ```python
    best = search_shares(CausalLM("quickstart"), TextData(length=128), FLAP(ratio=0.3), trials=128)
    best.write("runs/search")
    ```

    Every block is pruned, and repaired, once at each of several shares. Models are stitched from
    these candidates and judged by the Kullback-Leibler divergence of their next tokens from the
    dense model's, on training text; see `Evolution` for which. What is found in the end is pruned
    as any other model, and counts only if it is better on held-out windows by more than the
    standard error of the difference, window by window.

    Args:
        module: the model.
        data: a data module with calibration, training and validation batches.
        method: a method that cuts units or sets weights to zero, with its budget; or, as in a
            configuration, a mapping of class_path and init_args.
        trials: how many stitched models are judged.
        per: what gets a share of its own: each "block"; each "part" of a block, its attention and
            its MLP; or each "site", a single Linear, of methods that set weights to zero.
        step: from one share to the next that there are candidates for, in parts of the mean share
            or, if that is less, of what is left by it.
        children: stitched models of a generation.
        stages: on how many windows of training text a generation is judged: all of it on the first
            number, the best quarter on the next.
        held_out: windows of training text that decide in the end. They, and those of `stages`,
            share no passage with the calibration and validation windows.
        seed: of the mutations.
        device: where blocks run; None: where the model is.
        journal: a folder in which candidates and results are kept: what is there is not computed
            again. None: candidates lie in TMPDIR as long as the search runs.
        windows: perplexity is of so many validation windows at most; None: of all of them.

    Raises:
        ValueError: an argument is out of range, the method cannot be given such shares, there is
            but one thing to give a share to, or the training text is too short.
    """
    check_choice("search: per", per, ("block", "part", "site"))
    for name, value in (("trials", trials), ("held_out", held_out), ("children", children)):
        if value < 1:
            raise ValueError(f"search: {name}={value}; give 1 or more")
    if not 0 < step <= 1:
        raise ValueError(f"search: step={step} is not in (0, 1]")
    if not stages or min(stages) < 1 or sorted(set(stages)) != list(stages):
        raise ValueError(f"search: stages={list(stages)}; give numbers that rise, such as [4, 16]")
    pruning = _made(method)
    with ExitStack() as stack:
        folder = journal or stack.enter_context(TemporaryDirectory())
        search = _Search(Bench(module, data, device, folder, windows), pruning, per, step)
        search.take_text(held_out, stages)
        return search.run(trials, children, seed)


def _made(spec: Spec) -> Prunes:
    try:
        method = make(spec, PruningCallback, "pruning methods")
    except ValueError as error:
        raise ValueError(f"search: {error}") from error
    if not isinstance(method, Prunes) or method.plan is not None:
        raise ValueError(
            f"search: {method!r} has no shares to be searched; give a method that cuts units or "
            "sets weights to zero, such as FLAP or Wanda, and no plan"
        )
    if outside := [name for name in ("head", "embeddings") if getattr(method, name, False)]:
        raise ValueError(
            f"search: {outside[0]}=True prunes what lies outside of the blocks, among which shares "
            "are searched; leave it out, and prune it with the shares that are found"
        )
    return method


class _Search:
    """One method on one model: what is searched, and what is pruned in the end."""

    def __init__(self, bench: Bench, method: Prunes, per: Per, step: float) -> None:
        assert bench.journal is not None, "results are kept"
        self.bench, self.method, self._journal = bench, method, bench.journal
        anatomy = Anatomy(bench.module.base)
        method.check(anatomy)
        self.budget = method.budget(anatomy)
        grid = share_grid(self.budget, step)
        self.slots = Slots(method, method.blocks(anatomy), per, grid)
        if len(self.slots.each) < 2:
            raise ValueError(f"search: budget is moved between {per}s, and only one is pruned")
        self._reuse = Reuse()
        self._last: tuple[str, Plan, nn.Module] | None = None

    def take_text(self, held_out: int, stages: Sequence[int]) -> None:
        """Take the windows that judge, on the way and in the end."""
        bench = self.bench
        seen, count = [*bench.calibration, *bench.validation], held_out + stages[-1]
        found = held_out_of(bench.data.train_dataloader(), seen, count, bench.length)
        self.held_out, self.text, self.stages = found[:held_out], found[held_out:], stages

    def run(self, trials: int, children: int, seed: int) -> BestShares:
        """Search, prune by what was found, and compare it with what there was before."""
        given = self._result("as given", self.method)
        evolution = self._evolution(children, seed)
        starts = {
            "uniform": evolution.near([self.budget * size for size in self.slots.sizes]),
            "as given": evolution.near(
                [f * size for f, size in zip(given.fractions, self.slots.sizes, strict=True)]
            ),
        }
        shares = self.slots.shares(evolution.run(starts, trials))
        method = self.slots.with_shares(self.slots.exact(shares, self.budget))
        found = self._result("found", method)
        best = found if found.beats(given) else given
        bench = self.bench
        spread = Spread(
            model=bench.name,
            method=repr(self.method),
            dense=bench.dense(),
            slots=[slot.name for slot in self.slots.each],
            tried=[
                Attempt(one.name, one.windows, one.value, self.slots.shares(one.levels))
                for one in evolution.tried
            ],
            results=[given, found],
            best=best,
            settings=bench.settings()
            | {"held_out": len(self.held_out), "stages": list(self.stages), "per": self.slots.per}
            | {"children": children, "seed": seed},
        )
        method = method if best is found else self.method
        return BestShares(spread, method, *self._pruned(method))

    def _evolution(self, children: int, seed: int) -> Evolution:
        self._last = None  # its memory is for the search
        stitching = Stitching(
            self.bench, self.slots.with_mean(self.budget), self.slots, self.text, self._reuse
        )
        removed = [slot.removed for slot in self.slots.each]
        target, rng = self.budget * sum(self.slots.sizes), random.Random(seed)
        return Evolution(removed, target, stitching.judge, self.stages, children, rng)

    def _result(self, name: str, method: Prunes) -> Trial:
        """What comes of pruning the model so; known or new."""
        bench, judges = self.bench, (self.held_out, self.bench.validation)
        step = {
            "call": repr(method),
            "per": self.slots.per,
            "calibration": digest_of(bench.calibration),
            "judged by": [digest_of(text) for text in judges],
        }
        record = self._journal.get(step)
        if record is None:
            plan, model = self._pruned(method)
            losses, _ = window_losses(model, [b for text in judges for b in text], bench.device)
            shares = self.slots.removed_by(plan)
            record = self._journal.put(step, {"losses": losses, "shares": shares})
        held, evaluated = (
            record["losses"][: len(self.held_out)],
            record["losses"][len(self.held_out) :],
        )
        trial = Trial(
            name,
            record["shares"],
            self._perplexity(held, self.held_out),
            self._perplexity(evaluated, bench.validation),
            held,
        )
        rank_zero_info(f"{name}: perplexity {perplexity_text(trial.perplexity)} on held-out text")
        return trial

    def _perplexity(self, losses: Sequence[float], batches: Batches) -> float:
        task = Anatomy(self.bench.module.base).task
        tokens = sum(int((task.targets(batch) != IGNORED).sum()) for batch in batches)
        return float((torch.tensor(losses, dtype=torch.float64).sum() / tokens).exp())

    def _pruned(self, method: Prunes) -> tuple[Plan, nn.Module]:
        """A copy of the model, pruned; the last one is held."""
        call, bench = repr(method), self.bench
        if self._last is None or self._last[0] != call:
            self._last = None
            model = copy.deepcopy(bench.module.base)
            plan = prune(model, method, bench.calibration, bench.device, self._reuse)
            self._last = call, plan, model
        return self._last[1:]
