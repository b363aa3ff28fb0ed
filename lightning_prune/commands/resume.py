"""After Ctrl-C, or a signal: what is kept of a run, and the command that goes on from it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.callbacks.base import methods_of
from lightning_prune.commands.signals import how_stopped

__all__ = ["SayHowToGoOn"]


class SayHowToGoOn(Callback):
    """After Ctrl-C, or a signal: what is kept of a run, and the command that goes on from it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say it in one line."""
        how = "interrupted" if isinstance(exception, KeyboardInterrupt) else how_stopped(exception)
        if how is None or not trainer.is_global_zero:
            return
        step = f" at step {trainer.global_step}" if trainer.global_step else ""
        print(f"lightning-prune: {how}{step}; {self._way_on(trainer)}", file=sys.stderr)
        exception.said = True  # type: ignore[attr-defined]

    def _way_on(self, trainer: Trainer) -> str:
        checkpoint = _last_checkpoint(trainer)
        if checkpoint is None:
            kept = [str(path) for path in _kept(trainer)]
            if not kept:
                return "nothing was finished yet, and the same command begins anew"
            there = "there is no checkpoint yet, but " if trainer.global_step else ""
            return f"{there}{' and '.join(kept)} is kept: the same command again goes on there"
        if checkpoint.name.startswith("hpc_ckpt_"):
            return f"the last checkpoint is {checkpoint}: the same command again goes on there"
        config = Path(trainer.default_root_dir) / "config.yaml"
        again = f"lightning-prune {self.command} --config {quote(str(config))}"
        again += f" --ckpt_path {quote(str(checkpoint))}"
        return f"the last checkpoint is {checkpoint}. Go on with: {again}"


def _kept(trainer: Trainer) -> Iterator[Path]:
    """Where what was pruned, and what is being pruned, is kept."""
    for method in methods_of(trainer):
        folder = method.folder(trainer)
        unfinished = folder.with_name(f"{folder.name}-unfinished")
        if unfinished.is_dir():
            yield unfinished
        elif (folder / "plan.json").is_file():
            yield folder


def _last_checkpoint(trainer: Trainer) -> Path | None:
    """The newest checkpoint that this run has written, or else the one that it started from."""
    paths = [
        Path(path)
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
        for path in (callback.last_model_path, callback.best_model_path)
        if path and Path(path).exists()
    ]
    if "SLURM_NTASKS" in os.environ:  # there Lightning looks for those by itself
        paths += Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt")
    if not paths and trainer.ckpt_path and Path(trainer.ckpt_path).exists():
        return Path(trainer.ckpt_path)
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)
