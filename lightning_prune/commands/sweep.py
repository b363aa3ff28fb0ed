"""`lightning-prune sweep`: one model under a grid of methods and sparsities, in one table."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from lightning_prune.commands.study import kept_of, study_folder
from lightning_prune.models import CausalLM
from lightning_prune.report.files import show
from lightning_prune.report.grid import grid_document
from lightning_prune.report.kept.studies import grid_runs
from lightning_prune.studies.grid import sweep_methods

__all__ = ["sweep"]


def sweep(
    trainer: Trainer,
    model: CausalLM,
    datamodule: LightningDataModule,
    methods: list[str | dict[str, Any]],
    sparsities: list[float | str],
    windows: int | None = None,
) -> None:
    """Prune one model by several methods and sparsities, and compare them in one table.

    Each cell of the grid starts from the dense weights again. What is done already is read from
    the run's folder and not done again; a cell that fails is a row with its error.

    Args:
        trainer: says on which device, and in which folder.
        model: the model.
        datamodule: calibration and validation text.
        methods: names of methods that set weights to zero or cut units off, or their class_path
            and init_args (without sparsity, pattern and ratio), with a `name` for the table if
            wanted.
        sparsities: fractions of zeros, such as 0.5, and patterns N:M, such as "2:4" (N kept); of
            methods that cut units off, the share of the parameters of all units that goes.
        windows: perplexity is of so many validation windows at most; None: of all of them.

    Raises:
        ValueError: a method or a sparsity is none, or the trainer has methods or processes.
    """
    folder = study_folder(trainer, "sweep", "methods")
    device = trainer.strategy.root_device
    journal = folder / "cells"
    where: dict[str, Any] = {"device": device, "journal": journal, "windows": windows}
    grid = sweep_methods(model, datamodule, methods, sparsities, **where)
    show(grid_document(grid), folder)
    kept_of(trainer).add(grid_runs, grid)
