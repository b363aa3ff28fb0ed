"""`lightning-prune prune`: everything that happens in `fit` before training starts."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import _TunerExitException

from lightning_prune.callbacks.base import methods_of

__all__ = ["NO_METHOD", "prune"]

NO_METHOD = (
    "name a method under trainer.callbacks, for example "
    "--trainer.callbacks+=Wanda --trainer.callbacks.sparsity=0.5"
)


def prune(trainer: Trainer, model: LightningModule, datamodule: LightningDataModule) -> None:
    """Prune, measure and save, without training.

    Everything that happens in `fit` before training starts: the callbacks are set up, and so
    prune, measure and save; no training text is read, and neither adapter nor optimizer made.

    Args:
        trainer: has a pruning method among its callbacks.
        model: the model.
        datamodule: calibration and validation text.

    Raises:
        ValueError: no pruning method is among the callbacks.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if not methods_of(trainer):
        raise ValueError(f"nothing to prune with: {NO_METHOD}")
    last = _StopHere()
    before = trainer.limit_train_batches, trainer.fit_loop.max_epochs
    callbacks.append(last)
    trainer.limit_train_batches = 0  # no training text is needed
    trainer.fit_loop.max_epochs = 1  # or Lightning warns that it would train for long
    try:
        trainer.fit(model, datamodule=datamodule)
    finally:
        callbacks.remove(last)
        trainer.limit_train_batches, trainer.fit_loop.max_epochs = before


class _StopHere(Callback):
    """The last callback that is set up: it ends `fit` before the adapter is attached."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's own way to end a run early and in order: everything is torn down, and
        # neither is an error reported nor are weights moved to the device.
        raise _TunerExitException
