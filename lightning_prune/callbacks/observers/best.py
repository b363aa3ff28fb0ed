"""Which of a run's weights are merged and saved: the best, if it kept them, or the last."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_prune.models.module import PrunableModule

__all__ = ["load_best"]


def load_best(trainer: Trainer, pl_module: PrunableModule) -> None:
    """Put the best weights of the run into the module, in place; every process has to call it.

    The best are those of the first ModelCheckpoint that has a `monitor`. Without one, the module is
    left as it is, with the last weights.

    Raises:
        ValueError: the checkpoint does not fit the module.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            _load(trainer, pl_module, callback)
            return


def _load(trainer: Trainer, pl_module: PrunableModule, callback: ModelCheckpoint) -> None:
    path = callback.best_model_path
    if not Path(path).exists():
        rank_zero_warn(
            f"The best checkpoint by {callback.monitor}, {path}, is not there any more: the last "
            "weights are merged."
        )
        return
    checkpoint = trainer.strategy.load_checkpoint(path)
    pl_module.on_load_checkpoint(checkpoint)
    trainer.strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)
    rank_zero_info(
        f"Merging the best weights by {callback.monitor} ({callback.best_model_score:.5g}): "
        f"those of step {checkpoint['global_step']}, of {trainer.global_step} in all."
    )
