"""`lightning-prune search`: what a method's arguments do, or how its budget is best spread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from lightning_prune.allocation import Allocation
from lightning_prune.commands.study import kept_of, study_folder
from lightning_prune.files import atomic_write
from lightning_prune.models import CausalLM
from lightning_prune.report.files import print_document, print_files, show
from lightning_prune.report.grid import grid_document
from lightning_prune.report.kept.studies import grid_runs, spread_run
from lightning_prune.report.search import spread_document
from lightning_prune.studies.search import vary_arguments
from lightning_prune.studies.slots import Per
from lightning_prune.studies.specs import Spec, with_arguments
from lightning_prune.studies.spread import search_shares

__all__ = ["search"]


def search(
    trainer: Trainer,
    model: CausalLM,
    datamodule: LightningDataModule,
    method: str | dict[str, Any],
    vary: dict[str, list[Any]] | None = None,
    trials: int = 0,
    per: Per = "block",
    step: float = 0.25,
    children: int = 16,
    stages: Sequence[int] = (4, 16),
    held_out: int = 64,
    seed: int = 0,
    windows: int | None = None,
) -> None:
    """Try one method's arguments, or search how its budget is best spread over blocks.

    With `vary`: the perplexity at every combination of values. With `trials`: every block is
    pruned at several shares, models are stitched from that, and those evolve whose answers are
    nearest to the dense model's; the best plan is written. What is done already is read from the
    run's folder.

    Args:
        trainer: says on which device, and in which folder.
        model: the model.
        datamodule: calibration, training and validation text.
        method: a method by its class_path and init_args, with its budget.
        vary: by argument ("ratio", "allocation.alpha"), or "nsamples", the values to try; the
            last one is the axis of the picture.
        trials: how many stitched models are judged.
        per: what gets a share of its own: each "block"; each "part", its attention and its MLP; or
            each "site", a single Linear, of methods that set weights to zero.
        step: from one share to the next that there are candidates for, in parts of the mean share
            or, if that is less, of what is left by it.
        children: stitched models of a generation.
        stages: on how many windows of training text a generation is judged: all of it on the first
            number, the best quarter on the next.
        held_out: windows of training text that decide in the end whether what was found is better.
            They, and those of `stages`, share no passage with the calibration and validation
            windows.
        seed: of the mutations.
        windows: perplexity is of so many validation windows at most; None: of all of them.

    Raises:
        ValueError: neither or both of vary and trials are given, what they ask for cannot be done,
            or the trainer has methods or processes.
    """
    folder = study_folder(trainer, "search", "method")
    where: dict[str, Any] = {"device": trainer.strategy.root_device, "windows": windows}
    where["journal"] = folder / "cells"
    if bool(vary) == bool(trials):
        raise ValueError(
            "search takes vary, such as {ratio: [0.2, 0.3], nsamples: [32, 128]}, or trials, such "
            f"as 64: one of the two. Got vary={vary or {}}, trials={trials}."
        )
    if vary:
        grid = vary_arguments(model, datamodule, method, vary, **where)
        show(grid_document(grid), folder)
        kept_of(trainer).add(grid_runs, grid)
        return
    how: dict[str, Any] = {"per": per, "step": step, "children": children, "stages": stages}
    how |= {"held_out": held_out, "seed": seed}
    best = search_shares(model, datamodule, method, trials, **how, **where)
    print_document(spread_document(best.spread))
    print_files(best.write(folder) | _write_method(folder, method, best.allocation))
    kept_of(trainer).add(spread_run, best.spread)


def _write_method(folder: Path, method: Spec, allocation: Allocation) -> dict[str, str]:
    """The method with the best shares, as a configuration for `fit` and `prune`."""
    shares = {"class_path": type(allocation).__name__, "init_args": allocation.arguments}
    callback = with_arguments(method, {"allocation": shares})
    path = folder / "best.yaml"
    with atomic_write(path) as file:  # JSON is YAML
        file.write("# The method with the best shares of a search.\n")
        json.dump({"trainer": {"callbacks": [callback]}}, file, indent=2)
        file.write("\n")
    return {"best.yaml": str(path)}
