"""LightningCLI with our commands, defaults and messages."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_prune.callbacks.base import methods_of
from lightning_prune.callbacks.early import check_checkpoint, checkpoint_of
from lightning_prune.callbacks.observers.base import PruneObserver
from lightning_prune.callbacks.observers.save_pretrained import SavePretrained
from lightning_prune.callbacks.observers.store import Store
from lightning_prune.callbacks.observers.write_report import WriteReport
from lightning_prune.commands.arguments import Kept
from lightning_prune.commands.classes import names_class
from lightning_prune.commands.errors import is_ours
from lightning_prune.commands.parser import help_of
from lightning_prune.commands.predict import WritePredictions
from lightning_prune.commands.prune import NO_METHOD
from lightning_prune.commands.quiet import quiet_training
from lightning_prune.commands.recipes import with_recipes
from lightning_prune.commands.resume import SayHowToGoOn
from lightning_prune.commands.signals import RESUMED
from lightning_prune.commands.slurm import Signals
from lightning_prune.commands.trainer import STUDIES, PruneTrainer
from lightning_prune.data import TextData
from lightning_prune.data.image_data import ImageData
from lightning_prune.files import replacing
from lightning_prune.models import CausalLM
from lightning_prune.models.checkpoint_io import WholeCheckpointIO
from lightning_prune.models.module import PrunableModule
from lightning_prune.parsing import OneLine, construct
from lightning_prune.plan import Plan

__all__ = ["PruneCLI", "run"]

OURS = ("prune", "plan_resources", *STUDIES)
ONE_PROCESS = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
"""A Trainer that any machine can have."""
DEFAULTS = {"model": CausalLM, "data": TextData}
"""What is meant where no class is named."""
KEEPING = ("fit", "validate", "test", "prune")
"""Commands that a callback adds the results of; studies do it themselves."""
ANY = {"model": LightningModule, "data": LightningDataModule}
"""What may be named instead."""


class _Parser(OneLine, LightningArgumentParser):
    """A parser whose errors say what is wrong before, and instead of, everything else."""


class _SaveConfig(SaveConfigCallback, PruneObserver):
    """Keep the merged configuration as `config.yaml` in the run's folder.

    When the model is pruned, or where a run goes on, when its checkpoint has been accepted: a run
    that is refused leaves what made the folder. Validating a run does not replace it either.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing yet."""

    def on_prune_end(self, trainer: Trainer, pl_module: PrunableModule, plan: Plan) -> None:
        """Of a run that starts anew."""
        if checkpoint_of(trainer) is None:
            self._keep(trainer, pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Of every run that trains."""
        self._keep(trainer, pl_module)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file."""
        _save(self.parser, self.config, trainer, getattr(trainer, "datamodule", None))

    def _keep(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")


class PruneCLI(LightningCLI):
    """One command: fit, validate, test, predict, prune, plan_resources, or one of the studies.

    Args:
        command: its name.
        description: what it does.
        named: the keys, of "model" and "data", for which a class is named.
    """

    def __init__(self, command: str, description: str, named: Sequence[str] = ()) -> None:
        self.command, self.named = command, named
        classes = {key: ANY[key] if key in named else DEFAULTS[key] for key in DEFAULTS}
        super().__init__(
            classes["model"],
            classes["data"],
            trainer_class=PruneTrainer,
            parser_class=_Parser,
            parser_kwargs={"prog": "lightning-prune", command: {"description": description}},
            save_config_callback=_SaveConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            subclass_mode_model="model" in named,
            subclass_mode_data="data" in named,
            load_from_checkpoint_support=bool(named),  # CausalLM keeps no hyperparameters
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command, with the arguments that the CLI provides; parsers are slow to make."""
        skipped = {**LightningCLI.subcommands(), **dict.fromkeys(OURS, {"model", "datamodule"})}
        return {self.command: skipped[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The usual classes until another one is named, and where results are added."""
        for key in self.named:
            usual = DEFAULTS[key]
            parser.set_defaults({key: {"class_path": f"{usual.__module__}.{usual.__qualname__}"}})
        # Of every command, so that one configuration serves them all.
        parser.add_argument("--db", type=str | None, default=None, help=help_of(Kept)["db"])

    def _parse_ckpt_path(self) -> None:
        """Read arguments from a checkpoint, of classes that keep them there."""
        path = self.config[self.command].get("ckpt_path")
        if path not in ("best", "last", "hpc", "registry"):
            check_checkpoint(path)
        if self.named:
            super()._parse_ckpt_path()

    def before_instantiate_classes(self) -> None:
        """What a class says of its arguments is the error; studies keep their configuration."""
        self.parser.add_instantiator(construct, object)
        if self.command in STUDIES:
            for moment in ("before", "after"):  # the date of the texts is known afterwards
                setattr(self, f"{moment}_{self.command}", self._keep_configuration)

    def before_fit(self) -> None:
        """Say so if nothing is pruned."""
        if not methods_of(self.trainer) and _is_dense(self.model):
            rank_zero_info(f"Nothing is pruned, only trained. To prune, {NO_METHOD}")

    def after_validate(self) -> None:
        """Below Lightning's table, what its perplexity is of."""
        self._say_windows("val", "validation", self.trainer.num_val_batches)

    def after_test(self) -> None:
        """Below Lightning's table, what its perplexity is of."""
        self._say_windows("test", "test", self.trainer.num_test_batches)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer whose run leaves everything in one folder.

        What the configuration does not name is added: a CSV log, checkpoints, a report, and the
        Hugging Face folders.

        Raises:
            ValueError: Lightning refuses a setting.
        """
        config = self.config_init[self.command]["trainer"]
        root = Path(config.get("default_root_dir") or "runs")
        if self.command in STUDIES:
            kwargs |= {"logger": False, "enable_checkpointing": False}
            kwargs |= {"devices": 1} if config.get("devices") == "auto" else {}
        elif self.command == "plan_resources":  # for another machine, as a rule
            kwargs |= {"logger": False, "enable_checkpointing": False} | ONE_PROCESS
        elif config.get("logger") in (None, True):
            kwargs.setdefault("logger", CSVLogger(root, name="logs"))
        kwargs.setdefault("default_root_dir", str(root))
        trainer = _made(super().instantiate_trainer, config, kwargs)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        db = self.config_init[self.command].get("db")
        if isinstance(trainer, PruneTrainer):
            trainer.kept = Kept(db) if self.command in STUDIES else None
            trainer.asked = {name: config.get(name) for name in ONE_PROCESS}
        present = trainer.callbacks  # type: ignore[attr-defined]
        if db is not None and self.command in KEEPING:
            present.append(Store(db))
        present.insert(0, Signals(trainer, requeues=self.command in RESUMED))
        if self.command in ("fit", "prune"):
            for usual in (SavePretrained, WriteReport):
                if not any(isinstance(callback, usual) for callback in present):
                    present.append(usual())
            for callback in present:
                if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                    callback.dirpath = str((root / "checkpoints").resolve())
                    callback.save_last = True
                    # Of a second run in this folder too, last.ckpt is the last.
                    callback._enable_version_counter = False
            present.append(SayHowToGoOn(self.command))
        elif self.command == "predict" and isinstance(self.model, CausalLM):
            present.append(WritePredictions())
        return trainer

    def _keep_configuration(self) -> None:
        config = self.config[self.command]
        _save(self._parser(self.command), config, self.trainer, self.datamodule)

    def _say_windows(self, name: str, use: str, batches: list[int | float]) -> None:
        data, trainer = self.datamodule, self.trainer
        if trainer.is_global_zero and isinstance(data, (TextData, ImageData)):
            most = int(sum(batches)) * data.batch_size * trainer.world_size
            measure = "perplexity" if isinstance(data, TextData) else "accuracy"
            print(f"{name}_{measure} is of {data.described(use, most)}")


def run(command: str, description: str, arguments: Sequence[str]) -> None:
    """Run one of the commands that take a configuration.

    Args:
        command: its name.
        description: what it does.
        arguments: of the command line, with the command's name.

    Raises:
        ValueError: an argument cannot be used.
    """
    arguments = with_recipes(arguments)
    named = [key for key in DEFAULTS if names_class(key, command, arguments)]
    before = sys.argv
    # LightningCLI, and what starts other processes, read sys.argv.
    sys.argv = [before[0], *arguments]
    try:
        with quiet_training():
            PruneCLI(command, description, named)
    finally:
        sys.argv = before


def _save(parser: LightningArgumentParser, config: Any, trainer: Trainer, data: Any) -> None:
    """Write a configuration, with the date that chats were told: today's, if none was asked for.

    What is null stays null: an argument that has another default would come back with that.
    """
    if isinstance(data, TextData) and data.dated:
        config.data.get("init_args", config.data).date = data.dated
    with replacing(Path(trainer.default_root_dir) / "config.yaml") as temporary:
        parser.save(config, str(temporary), multifile=False, skip_none=False)


def _is_dense(model: LightningModule) -> bool:
    """Whether a model comes from weights that carry no plan."""
    source = getattr(model, "source", None)
    return source is not None and not (Path(source.location) / "plan.json").is_file()


def _made(make: Callable[..., Trainer], config: Any, arguments: dict[str, Any]) -> Trainer:
    """The Trainer; what it refuses is told by its key and value."""
    strategy, known = config.get("strategy"), StrategyRegistry.available_strategies()
    if isinstance(strategy, str) and strategy not in ("auto", *known):
        raise ValueError(
            f"trainer.strategy={strategy} is not allowed. Allowed: auto, ddp, fsdp2, or another "
            "name that Lightning knows."
        )
    try:
        return make(**arguments)
    except (ValueError, TypeError, MisconfigurationException) as error:
        if is_ours(error):
            raise
        said = set(re.findall(r"\w+", str(error)))
        told = [
            k for k, v in vars(config).items() if k in said and isinstance(v, (int, float, str))
        ]
        names = told or ["accelerator", "devices", "strategy"]
        values = {name: config.get(name) for name in names}
        asked = ", ".join(f"trainer.{k}={v}" for k, v in values.items() if v != "auto")
        raise ValueError(
            f"Lightning refuses {asked or 'a setting of the trainer'}: {error}"
        ) from error
