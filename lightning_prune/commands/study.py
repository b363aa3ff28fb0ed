"""What commands ask of the Trainer that they are given."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer

from lightning_prune.callbacks.base import methods_of
from lightning_prune.commands.arguments import Kept

__all__ = ["kept_of", "study_folder"]


def study_folder(trainer: Trainer, command: str, methods: str | None = None) -> Path:
    """The folder of a command that trains nothing, and runs in one process.

    Args:
        trainer: of the command line.
        command: its name.
        methods: where the command takes its methods from, if it takes any.

    Raises:
        ValueError: the trainer has several processes, or methods of its own.
    """
    if trainer.world_size > 1:
        raise ValueError(
            f"{command} runs in one process, and trainer.devices={trainer.num_devices} asks for "
            f"{trainer.world_size}; set it to 1"
        )
    if methods is not None and methods_of(trainer):
        raise ValueError(f"{command} takes `{methods}`, not methods under trainer.callbacks")
    return Path(trainer.default_root_dir)


def kept_of(trainer: Trainer) -> Kept:
    """Where the results of a study are added: `--db` of the command line."""
    return getattr(trainer, "kept", None) or Kept()
