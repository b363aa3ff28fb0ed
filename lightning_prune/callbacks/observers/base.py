"""Callbacks that are told of pruning and recovery, in an order that does not depend on the list."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from transformers import PreTrainedModel

from lightning_prune.callbacks.observers.best import load_best
from lightning_prune.models.module import PrunableModule
from lightning_prune.models.recovery.merge import merged_model
from lightning_prune.plan import Plan
from lightning_prune.report.report import Report

__all__ = ["Lap", "PruneObserver", "observers_of", "report_of"]


@dataclass(frozen=True)
class Lap:
    """A part of a run: when it first started, on the clock of `perf_counter`, and its seconds."""

    start: float
    seconds: float


class PruneObserver(Callback):
    """A callback that is told of a model's pruning and recovery, wherever it stands in the list.

    Attributes:
        saves: told first that something starts, so that it can refuse, and last that it has ended,
            when the others have measured what is to be saved.
        reports: told last that something starts, just before it does, and of an end before those
            that save, and after all others.
    """

    saves: ClassVar[bool] = False
    reports: ClassVar[bool] = False

    def before_prune(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """Refuse what cannot work; of all observers before anything is measured of the model."""

    def on_prune_start(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """The model is loaded and dense (or as the previous method left it)."""

    def on_prune_end(self, trainer: Trainer, pl_module: PrunableModule, plan: Plan) -> None:
        """The plan has been applied; there is no adapter yet."""

    def on_recovery_end(
        self, trainer: Trainer, pl_module: PrunableModule, model: PreTrainedModel | None
    ) -> None:
        """The training is over, also if it was over before this start of the run.

        Args:
            trainer: the trainer.
            pl_module: the module.
            model: a plain copy of its model, adapter merged, in process 0; None in the others. With
                a ModelCheckpoint that has a `monitor`, of the best weights; else of the last.
        """

    def report_on(self, pl_module: LightningModule) -> Report | None:
        """What it has measured of a module so far, in process 0; None if it does not report."""
        return None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the trained model, once for all observers. Nothing was trained by `prune`."""
        observers = observers_of(trainer)
        if self is observers[0] and trainer.global_step > 0:
            assert isinstance(pl_module, PrunableModule)
            with self.timed("merging"):
                load_best(trainer, pl_module)
                model = merged_model(pl_module)
            for observer in observers:
                observer.on_recovery_end(trainer, pl_module, model)

    def load(self, pl_module: PrunableModule) -> None:
        """Load the model, if nobody has yet."""
        if pl_module.model is None:
            with self.timed("loading"):
                pl_module.load()

    @cached_property
    def laps(self) -> dict[str, Lap]:
        """How long it took, by what it did."""
        return {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the seconds of a block of code as those of a part of the run."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.count(name, start, time.perf_counter() - start)

    def count(self, name: str, start: float, seconds: float) -> None:
        """Add to the seconds of a part of the run."""
        before = self.laps.get(name, Lap(start, 0.0))
        self.laps[name] = Lap(before.start, before.seconds + seconds)


def observers_of(trainer: Trainer, *, start: bool = False) -> list[PruneObserver]:
    """The observers in a Trainer, in the order in which they are told of a start or of an end."""
    observers = [c for c in trainer.callbacks if isinstance(c, PruneObserver)]  # type: ignore[attr-defined]
    return sorted(
        observers, key=lambda o: (o.reports, not o.saves) if start else (o.saves, o.reports)
    )


def report_of(trainer: Trainer, pl_module: LightningModule) -> Report | None:
    """What the observers of a Trainer have measured of a module so far; None: nothing.

    In process 0; the others have none.
    """
    reports = (observer.report_on(pl_module) for observer in observers_of(trainer))
    return next((report for report in reports if report is not None), None)
