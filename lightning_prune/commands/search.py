"""`lightning-prune search`: what a method's arguments do, or how its budget is best spread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from lightning_prune.commands.study import kept_of, study_folder
from lightning_prune.files import atomic_write
from lightning_prune.models import CausalLM
from lightning_prune.report.files import print_document, print_files, show
from lightning_prune.report.grid import grid_document
from lightning_prune.report.kept.studies import grid_runs, spread_run
from lightning_prune.report.search import spread_document
from lightning_prune.studies.search import vary_arguments
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
    held_out: int = 64,
    step: float = 0.3,
    seed: int = 0,
    windows: int | None = None,
) -> None:
    """Try one method's arguments, or search how its budget is best spread over blocks.

    With `vary`: the perplexity at every combination of values. With `trials`: starting from the
    same share for all blocks and from the method's own allocation, a little budget is moved
    between two blocks, and kept there if the perplexity on held-out training text falls; the
    best plan is written. What is done already is read from the run's folder.

    Args:
        trainer: says on which device, and in which folder.
        model: the model.
        datamodule: calibration, training and validation text.
        method: a method by its class_path and init_args, with its budget.
        vary: by argument ("ratio", "allocation.alpha"), or "nsamples", the values to try; the
            last one is the axis of the picture.
        trials: how many times budget is moved.
        held_out: windows of training text that trials are judged by; they share no passage with
            the calibration and validation windows.
        step: how much is moved at most, in parts of the budget of a block.
        seed: of the trials.
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
    how: dict[str, Any] = {"held_out": held_out, "step": step, "seed": seed}
    best = search_shares(model, datamodule, method, trials, **how, **where)
    print_document(spread_document(best.spread))
    print_files(best.write(folder) | _write_method(folder, method, best.fractions))
    kept_of(trainer).add(spread_run, best.spread)


def _write_method(folder: Path, method: Spec, fractions: list[float]) -> dict[str, str]:
    """The method with the shares that were found, as a configuration for `fit` and `prune`."""
    shares = {"class_path": "PerBlock", "init_args": {"fractions": fractions}}
    callback = with_arguments(method, {"allocation": shares})
    path = folder / "best.yaml"
    with atomic_write(path) as file:  # JSON is YAML
        file.write("# The method with the shares that the search has found.\n")
        json.dump({"trainer": {"callbacks": [callback]}}, file, indent=2)
        file.write("\n")
    return {"best.yaml": str(path)}
