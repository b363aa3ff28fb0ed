"""The command line: LightningCLI, one subcommand of our own, and errors that fit on one line."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from transformers.utils.logging import disable_progress_bar

from lightning_prune.callbacks import PruningCallback, SavePretrained, WriteReport
from lightning_prune.data import TextData
from lightning_prune.models import CausalLM

__all__ = ["PruneCLI", "PruneTrainer", "main"]

DEBUG = "LIGHTNING_PRUNE_DEBUG"
CONFIG_FLAGS = ("--config", "-c")


class PruneTrainer(Trainer):
    """A Trainer that can also prune without training."""

    def prune(self, model: CausalLM, datamodule: TextData) -> None:
        """Prune, measure and save, without training.

        Args:
            model: the model.
            datamodule: calibration and validation text.
        """
        if not any(isinstance(c, PruningCallback) for c in self.callbacks):  # type: ignore[attr-defined]
            raise ValueError(
                "nothing to prune with: name a method under trainer.callbacks, for example "
                "--trainer.callbacks+=Wanda --trainer.callbacks.sparsity=0.5"
            )
        model.adapter = None
        self.fit_loop.epoch_loop.max_steps = 0
        self.limit_val_batches = 0
        self.log_every_n_steps = 1  # nothing is logged; Lightning would warn about larger ones
        self.fit(model, datamodule)


class _Parser(LightningArgumentParser):
    """A parser whose errors say what is wrong before, and instead of, everything else."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        reason = " ".join(str(_root(ex)).split()) if ex is not None else message
        where = message.split(":", 1)[0] + ": " if message.startswith("Parser key") else ""
        _fail(reason if reason.startswith(where) else where + reason)


class _SaveConfig(SaveConfigCallback):
    """Keep the merged configuration as `config.yaml` in the run's folder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":  # validating a run must not overwrite what made it
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, str(folder / "config.yaml"), overwrite=True, multifile=False)


class PruneCLI(LightningCLI):
    """`lightning-prune fit | validate | test | predict | prune`."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The Trainer's methods that are commands, with the arguments that the CLI provides."""
        return {**LightningCLI.subcommands(), "prune": {"model", "datamodule"}}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer whose run leaves everything in one folder.

        What the configuration does not name is added: a CSV log, checkpoints, a report, and the
        Hugging Face folders.
        """
        config = self.config_init[self.subcommand]["trainer"] if self.subcommand else {}
        root = Path(config.get("default_root_dir") or "runs")
        if config.get("logger") in (None, True):
            kwargs.setdefault("logger", CSVLogger(root, name="logs"))
        kwargs.setdefault("default_root_dir", str(root))
        trainer = super().instantiate_trainer(**kwargs)
        if self.subcommand in ("fit", "prune"):
            present = trainer.callbacks  # type: ignore[attr-defined]
            if not any(isinstance(c, SavePretrained) for c in present):
                present.append(SavePretrained())
            if not any(isinstance(c, WriteReport) for c in present):
                present.append(WriteReport())
            for callback in present:
                if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                    callback.dirpath = str((root / "checkpoints").resolve())
                    callback.save_last = True
        return trainer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    An error of this package, of Lightning's settings, or of the disk, is one line and exit status
    2; set LIGHTNING_PRUNE_DEBUG=1 for its traceback.
    """
    _quiet()
    arguments = sys.argv[1:] if arguments is None else arguments
    # LightningCLI reads sys.argv, and warns about anything else.
    sys.argv = [sys.argv[0], *_with_recipes(arguments)]
    try:
        PruneCLI(
            CausalLM,
            TextData,
            trainer_class=PruneTrainer,
            parser_class=_Parser,
            save_config_callback=_SaveConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
        )
    except (ValueError, TypeError, OSError, KeyError, MisconfigurationException) as error:
        root = _root(error)
        plain = _ours(root) or isinstance(root, (OSError, MisconfigurationException))
        if os.environ.get(DEBUG) or not plain:
            raise
        _fail(str(root))


def _fail(reason: str) -> NoReturn:
    print(f"lightning-prune: error: {reason}", file=sys.stderr)
    raise SystemExit(2)


def _root(error: BaseException) -> BaseException:
    """The error that matters; jsonargparse wraps it in one about every type that it tried."""
    while error.__cause__ is not None and "Union subtypes" in str(error):
        error = error.__cause__
    return error


def _with_recipes(arguments: Sequence[str]) -> list[str]:
    """The arguments with the names of shipped recipes and fragments replaced by their paths."""
    found: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if found and found[-1] in CONFIG_FLAGS:
            found.append(_recipe(argument))
        elif equals and name in CONFIG_FLAGS:
            found += [name, _recipe(value)]
        else:
            found.append(argument)
    return found


def _recipe(config: str) -> str:
    """A config file: the one at this path, else the shipped one of this name."""
    if Path(config).exists():
        return config
    package = Path(__file__).parent
    folders = (package / "recipes", package.parent / "recipes", package / "configs")
    shipped = {file.name: file for folder in folders for file in sorted(folder.glob("*.yaml"))}
    name = Path(config).name
    if name not in shipped:
        _fail(
            f"no config {config!r}: there is no such file here, and none of that name comes with "
            f"the package, which has {', '.join(shipped)}"
        )
    return str(shipped[name])


def _ours(error: BaseException) -> bool:
    """Whether an error was raised by a line of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def _quiet() -> None:
    """Leave out advertising, and advice that cannot be followed."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    disable_progress_bar()
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*is_gradient_checkpointing.*",
        ".*LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message=message)


if __name__ == "__main__":
    main()
