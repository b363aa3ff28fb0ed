"""After Ctrl-C: where the last checkpoint is, and the command that goes on from it."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

__all__ = ["SayHowToGoOn"]


class SayHowToGoOn(Callback):
    """After Ctrl-C: where the last checkpoint is, and the command that goes on from it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say it in one line."""
        if not isinstance(exception, KeyboardInterrupt) or not trainer.is_global_zero:
            return
        config = Path(trainer.default_root_dir) / "config.yaml"
        again = f"lightning-prune {self.command} --config {quote(str(config))}"
        checkpoint = _last_checkpoint(trainer)
        if checkpoint is None:
            where = "there is no checkpoint yet. Start again (what was pruned is used again)"
        else:
            where = f"the last checkpoint is {checkpoint}. Go on with"
            again += f" --ckpt_path {quote(str(checkpoint))}"
        step = f" at step {trainer.global_step}" if trainer.global_step else ""
        print(f"lightning-prune: interrupted{step}; {where}: {again}", file=sys.stderr)


def _last_checkpoint(trainer: Trainer) -> Path | None:
    """The newest checkpoint that this run has written, or else the one that it started from."""
    paths = [
        Path(path)
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
        for path in (callback.last_model_path, callback.best_model_path)
        if path and Path(path).exists()
    ]
    if not paths and trainer.ckpt_path and Path(trainer.ckpt_path).exists():
        return Path(trainer.ckpt_path)
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)
