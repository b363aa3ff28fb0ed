"""`lightning-prune importance`: how important each block is, measured once and used again."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from lightning_prune.commands.study import kept_of, study_folder
from lightning_prune.models import CausalLM
from lightning_prune.report.files import show
from lightning_prune.report.importance import importance_document
from lightning_prune.report.kept.studies import importance_run
from lightning_prune.studies.importance import measure_importance

__all__ = ["importance"]


def importance(
    trainer: Trainer, model: CausalLM, datamodule: LightningDataModule, **asked: Any
) -> None:
    """Measure how important each block is, for allocations to use.

    Args:
        trainer: says on which device, and in which folder.
        model: the model.
        datamodule: calibration text.
        asked: what `measure_importance` takes.

    Raises:
        ValueError: what `measure_importance` refuses, or the trainer has several processes.
    """
    folder = study_folder(trainer, "importance")
    device = trainer.strategy.root_device
    importance = measure_importance(model, datamodule, device=device, **asked)
    show(importance_document(importance), folder)
    kept_of(trainer).add(importance_run, importance)
