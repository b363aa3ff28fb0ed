"""LightningCLI with our commands, defaults and messages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_prune.callbacks import SavePretrained, WriteReport
from lightning_prune.cli.callbacks import SayHowToGoOn, WritePredictions
from lightning_prune.cli.errors import fail, is_ours, parse_reason
from lightning_prune.cli.trainer import PruneTrainer
from lightning_prune.data import TextData
from lightning_prune.models import CausalLM

__all__ = ["PruneCLI", "run_lightning"]

DESCRIPTION = (
    "Prune Hugging Face causal language models, recover them, and save them as ordinary "
    "checkpoints. Recipes and fragments that come with the package are found by name: "
    "lightning-prune fit --config quickstart.yaml"
)
EPILOG = (
    "These take no configuration, and have a --help of their own: evaluate (perplexity and tasks), "
    "measure (size and speed), export (for another place), generate, sparsity (zeros in a folder), "
    "compare (blocks of two models), analyze scores (of two plans)."
)
HELP = {
    "fit": "Prune, recover by training, validate and save.",
    "validate": "Measure perplexity on the validation text.",
    "test": "Measure perplexity on the test text.",
    "predict": "Write the loss of every window of the test text to a file.",
    "prune": "Prune, measure and save, without training.",
    "sweep": "Prune one model by several methods and sparsities; compare them in one table.",
    "importance": "Measure how important each block is, for allocations to use.",
    "search": "Try one method's arguments, or search how its budget is best spread over blocks.",
}

WITHOUT_FIT = ("sweep", "importance", "search")
"""Commands of ours that train nothing: no logger, no checkpoints, one device."""


class _Parser(LightningArgumentParser):
    """A parser whose errors say what is wrong before, and instead of, everything else."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        fail(parse_reason(message, ex))


class _SaveConfig(SaveConfigCallback):
    """Keep the merged configuration as `config.yaml` in the run's folder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":  # validating a run must not overwrite what made it
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if dated := getattr(getattr(trainer, "datamodule", None), "dated", None):
            self.config.data.date = dated  # that of today, if none was asked for
        self.parser.save(self.config, str(folder / "config.yaml"), overwrite=True, multifile=False)


class PruneCLI(LightningCLI):
    """`lightning-prune fit | validate | test | predict | prune | sweep | …`."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The Trainer's methods that are commands, with the arguments that the CLI provides."""
        ours = {"model", "datamodule"}
        return {**LightningCLI.subcommands(), "prune": ours, **dict.fromkeys(WITHOUT_FIT, ours)}

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Say in `--help` what our commands do, not what the Trainer's methods do."""
        super().setup_parser(*args, **kwargs)
        for action in self.parser._actions:
            for choice in getattr(action, "_choices_actions", ()):
                choice.help = HELP.get(choice.dest, choice.help)

    def before_instantiate_classes(self) -> None:
        """Commands that train nothing keep their configuration, as `_SaveConfig` does for `fit`."""
        for command in WITHOUT_FIT:
            setattr(self, f"before_{command}", self._keep_configuration)

    def _keep_configuration(self) -> None:
        command = str(self.subcommand)
        folder = Path(self.trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path, config = str(folder / "config.yaml"), self.config[command]
        self._parser(command).save(config, path, overwrite=True, multifile=False)

    def after_validate(self) -> None:
        """Below Lightning's table, what its perplexity is of."""
        self._say_windows("val", "validation", self.trainer.num_val_batches)

    def after_test(self) -> None:
        """Below Lightning's table, what its perplexity is of."""
        self._say_windows("test", "test", self.trainer.num_test_batches)

    def _say_windows(self, name: str, use: str, batches: list[int | float]) -> None:
        data, trainer = self.datamodule, self.trainer
        if trainer.is_global_zero:
            most = int(sum(batches)) * data.batch_size * trainer.world_size
            print(f"{name}_perplexity is of {data.described(use, most)}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer whose run leaves everything in one folder.

        What the configuration does not name is added: a CSV log, checkpoints, a report, and the
        Hugging Face folders.

        Raises:
            ValueError: Lightning refuses a setting.
        """
        config = self.config_init[self.subcommand]["trainer"] if self.subcommand else {}
        root = Path(config.get("default_root_dir") or "runs")
        if self.subcommand in WITHOUT_FIT:
            kwargs |= {"logger": False, "enable_checkpointing": False}
            kwargs |= {"devices": 1} if config.get("devices") == "auto" else {}
        elif config.get("logger") in (None, True):
            kwargs.setdefault("logger", CSVLogger(root, name="logs"))
        kwargs.setdefault("default_root_dir", str(root))
        trainer = _made(super().instantiate_trainer, config, kwargs)
        present = trainer.callbacks  # type: ignore[attr-defined]
        if self.subcommand in ("fit", "prune"):
            if not any(isinstance(c, SavePretrained) for c in present):
                present.append(SavePretrained())
            if not any(isinstance(c, WriteReport) for c in present):
                present.append(WriteReport())
            for callback in present:
                if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                    callback.dirpath = str((root / "checkpoints").resolve())
                    callback.save_last = True
                    # Of a second run in this folder too, last.ckpt is the last.
                    callback._enable_version_counter = False
            present.append(SayHowToGoOn(str(self.subcommand)))
        elif self.subcommand == "predict":
            present.append(WritePredictions())
        return trainer


def _made(make: Any, config: Any, arguments: dict[str, Any]) -> Trainer:
    """The Trainer; what it refuses is told by its key and value."""
    strategy, known = config.get("strategy"), StrategyRegistry.available_strategies()
    if isinstance(strategy, str) and strategy not in ("auto", *known):
        raise ValueError(
            f"trainer.strategy={strategy} is not allowed. Allowed: auto, ddp, fsdp2, or another "
            "name that Lightning knows."
        )
    try:
        trainer: Trainer = make(**arguments)
    except (ValueError, TypeError, MisconfigurationException) as error:
        if is_ours(error):
            raise
        values = {name: config.get(name) for name in ("accelerator", "devices", "strategy")}
        asked = ", ".join(f"trainer.{k}={v}" for k, v in values.items() if v != "auto")
        raise ValueError(
            f"Lightning refuses {asked or 'a setting of the trainer'}: {error}"
        ) from error
    return trainer


def run_lightning(arguments: Sequence[str]) -> None:
    """Run one of the commands that take a configuration."""
    # LightningCLI reads sys.argv, and warns about anything else.
    sys.argv = [sys.argv[0], *arguments]
    described: dict[str, Any] = {name: {"description": text} for name, text in HELP.items()}
    described |= {"prog": "lightning-prune", "description": DESCRIPTION, "epilog": EPILOG}
    PruneCLI(
        CausalLM,
        TextData,
        trainer_class=PruneTrainer,
        parser_class=_Parser,
        parser_kwargs=described,
        save_config_callback=_SaveConfig,
        seed_everything_default=0,
        auto_configure_optimizers=False,
    )
