"""What the tests of whole runs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune import TextData

__all__ = ["Losses", "checkpoints", "make_data", "make_trainer"]


class Losses(Callback):
    """Remembers the loss of every step, and stops the run after some steps if asked to."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.values: dict[int, float] = {}
        self.stop_after = stop_after

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.stop_after:
            raise KeyboardInterrupt

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.values[trainer.global_step] = float(trainer.callback_metrics["train_loss"])


def make_trainer(root: Path, *callbacks: Callback, steps: int = 6, **settings: Any) -> Trainer:
    """A quiet Trainer on the CPU, without checkpoints that no callback asks for."""
    return Trainer(
        default_root_dir=root,
        max_steps=steps,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


def make_data(text_file: Path, **settings: Any) -> TextData:
    return TextData(str(text_file), nsamples=8, length=32, batch_size=4, **settings)


def checkpoints(root: Path) -> ModelCheckpoint:
    """At every step; `last.ckpt` is the last."""
    return ModelCheckpoint(root / "checkpoints", every_n_train_steps=1, save_last="link")
