"""Measure what was gained and lost, and leave it in the run's folder."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from transformers import PreTrainedModel

from lightning_prune import distributed
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import methods_of
from lightning_prune.callbacks.early import checkpoint_of
from lightning_prune.callbacks.observers.base import PruneObserver, observers_of
from lightning_prune.callbacks.observers.curves import Curves
from lightning_prune.callbacks.observers.measuring import (
    Batch,
    block_shapes,
    decoding,
    device_name,
    first_windows,
    members,
    stage_metrics,
    validation_batches,
)
from lightning_prune.callbacks.observers.run_facts import (
    asked_and_done,
    configuration,
    files,
    importance_of_blocks,
    new_report,
    provenance,
    with_judgements,
)
from lightning_prune.checks import known_arguments
from lightning_prune.data.protocols import begun_with
from lightning_prune.evaluation import Answer, Evaluation, continuation
from lightning_prune.models.module import PrunableModule
from lightning_prune.models.recovery.zeros import check_zeros
from lightning_prune.plan import Plan
from lightning_prune.report.differing import with_differing
from lightning_prune.report.files import Document, print_document, print_files, write
from lightning_prune.report.report import Report
from lightning_prune.report.run import run_document

__all__ = ["WriteReport"]


class WriteReport(PruneObserver):
    """Measure the dense, the pruned and the recovered model, and report them side by side.

    Leaves `report.html`, `report.json` and `structure.svg` in the run's folder, and prints a table
    when the run ends, with the seconds that each part of it took. Perplexity is that of the
    validation windows, accuracy that of the validation images, as many as `limit_val_batches` lets
    through (all of them where it is 0); without validation data it is left out. The recovered model
    is measured as it is saved, with its adapter merged. Process 0 measures, block by block, while
    the others wait. What an `Evaluate` in the same Trainer finds is reported too.

    The curves of the training, at every `log_every_n_steps`-th step, are part of checkpoints.

    Args:
        speed: also measure tokens per second, of a forward pass and of generation with a KV cache,
            of each model on the device at hand.
        prompt: tokens of the first validation window that each model goes on from; 0: none.
        windows: perplexity, or accuracy, is of so many validation windows, or images, at most; 0:
            it is not measured; None: of all of them.

    Raises:
        ValueError: a number is below 0.
    """

    reports: ClassVar[bool] = True

    @known_arguments
    def __init__(self, speed: bool = True, prompt: int = 24, windows: int | None = None) -> None:
        for name, number in (("prompt", prompt), ("windows", windows or 0)):
            if number < 0:
                raise ValueError(f"WriteReport: {name}={number}; 0 at least")
        self.speed = speed
        self.prompt = prompt
        self.windows = windows
        self._reports: MutableMapping[LightningModule, Report] = WeakKeyDictionary()
        self._curves = Curves()
        self._said: dict[str, torch.Tensor] = {}
        self._parameters = 0
        self._start = 0.0
        self._others = 0.0

    def report_on(self, pl_module: LightningModule) -> Report | None:
        """The report of the module's run as it was last written, in process 0."""
        return self._reports.get(pl_module)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start new curves; a checkpoint brings its own afterwards."""
        if stage == "fit":
            self._curves = Curves()
            if isinstance(pl_module, PrunableModule):
                self.load(pl_module)

    def on_prune_start(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """Measure the dense model; with several methods, before the first one."""

        def begin() -> None:
            if pl_module not in self._reports:
                self._reports[pl_module] = new_report(pl_module)
                self._measure("dense", trainer, pl_module, pl_module.base)
            self._parameters = sum(p.numel() for p in pl_module.base.parameters())

        distributed.once(begin)
        self._begin(trainer)

    def on_prune_end(self, trainer: Trainer, pl_module: PrunableModule, plan: Plan) -> None:
        """Measure the pruned model, and write the report as far as it goes."""
        self._end(trainer, "pruning")

        def go_on() -> None:
            report = self._measure("pruned", trainer, pl_module, pl_module.base)
            methods = methods_of(trainer)
            done = [method for method in methods if method.has_pruned(pl_module)]
            asked = asked_and_done(done[-1], plan, pl_module.base, self._parameters)
            self._reports[pl_module] = replace(
                report,
                method=", ".join(map(repr, methods)),
                asked=[*report.asked, asked],
                importance=importance_of_blocks(pl_module.plans),
                provenance=provenance(pl_module),
                configuration=configuration(trainer, pl_module),
            )
            if checkpoint_of(trainer) is None:  # else the report that is there is of more
                self._write(trainer, pl_module)

        distributed.once(go_on)

    def on_recovery_end(
        self, trainer: Trainer, pl_module: PrunableModule, model: PreTrainedModel | None
    ) -> None:
        """Measure the recovered model as it will be saved."""

        def go_on() -> None:
            assert model is not None, "process 0 has the model"
            if pl_module in self._reports:
                report = self._measure("recovered", trainer, pl_module, model)
                if pl_module.plan is not None and pl_module.plan.mask_names:
                    zeros = check_zeros(model, pl_module.plan, "after recovery")
                    counts = {"planned_zeros": zeros, "revived_zeros": 0}
                    report = replace(report, settings=report.settings | counts)
                    self._reports[pl_module] = report
                self._write(trainer, pl_module)

        distributed.once(go_on)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write and print the whole report."""

        def end() -> None:
            if pl_module in self._reports:
                document, paths = self._write(trainer, pl_module)
                print_document(document)
                print_files(paths)

        if stage == "fit":
            distributed.once(end)
            self._forget_laps(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Forget how long it took so far."""
        self._forget_laps(trainer)

    # --- training ---

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._begin(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._end(trainer, "training")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss where it is logged."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._curves.note(trainer, "train_loss")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note loss, and perplexity or accuracy, of the validation data."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._curves.note(trainer, "val_loss", "val_perplexity", "val_accuracy")

    def state_dict(self) -> dict[str, Any]:
        """The curves so far."""
        return {"curves": self._curves.points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curves of the checkpoint."""
        self._curves.go_on_from(state_dict["curves"])

    def _begin(self, trainer: Trainer) -> None:
        self._start, self._others = time.perf_counter(), _seconds_of_observers(trainer)

    def _end(self, trainer: Trainer, name: str) -> None:
        """Count the time since `_begin`, but for what observers have done in it."""
        others = _seconds_of_observers(trainer) - self._others
        self.count(name, self._start, time.perf_counter() - self._start - others)

    # --- measuring ---

    def _measure(
        self, stage: str, trainer: Trainer, pl_module: PrunableModule, model: PreTrainedModel
    ) -> Report:
        report = self._reports[pl_module]
        with self.timed(f"measuring {stage}"):
            batches = validation_batches(trainer)
            device = trainer.strategy.root_device
            reads_text = bool(batches) and "input_ids" in batches[0]
            length = batches[0]["input_ids"].shape[1] if reads_text else None
            measured = Evaluation()
            metrics, classified = stage_metrics(model, batches, self.windows, device, self.speed)
            if self.speed and length is not None:
                measured.speeds = decoding(model, length, device)
            if reads_text and self.prompt:
                measured.answers = self._answers(pl_module, model, batches[0], device)
            gone = pl_module.plan.dropped if pl_module.plan is not None else set()
            judged = first_windows(batches, self.windows)
            data = getattr(trainer, "datamodule", None)
            report = self._reports[pl_module] = replace(
                report,
                settings={
                    "length": length,
                    "begin": begun_with(data, "validation") if batches else "",
                    "validation_windows": members(judged),
                    "unit": Anatomy(model).task.unit,
                    "device": device_name(device),
                    "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
                },
                stages={**report.stages, stage: metrics},
                blocks=block_shapes(model, report.blocks, gone),
                evaluations={**report.evaluations, stage: measured},
            )
            if classified is not None:
                self._said = {} if stage == "dense" else self._said
                self._said[stage] = classified.said_N
                names = {int(i): str(n) for i, n in (model.config.id2label or {}).items()}
                report = self._reports[pl_module] = with_differing(
                    report, self._said, classified.label_N, judged, names
                )
        return report

    def _answers(
        self, pl_module: PrunableModule, model: PreTrainedModel, batch: Batch, device: torch.device
    ) -> list[Answer]:
        """How the model goes on from the beginning of the first window."""
        if pl_module.tokenizer is None:
            return []
        prompt_T = batch["input_ids"][0, : self.prompt]
        answer = continuation(model, pl_module.tokenizer, prompt_T, device)
        return [answer] if answer is not None else []

    def _write(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> tuple[Document, dict[str, str]]:
        """Bring the report up to date and write it; gives what is printed, and the run's files."""
        laps = [(name, lap) for o in observers_of(trainer) for name, lap in o.laps.items()]
        report = self._reports[pl_module]
        report = self._reports[pl_module] = replace(
            report,
            curves=self._curves.points,
            evaluations=with_judgements(trainer, report.evaluations),
            seconds={n: lap.seconds for n, lap in sorted(laps, key=lambda item: item[1].start)},
            files=files(trainer),
        )
        document = run_document(report, trainer.default_root_dir)
        return document, report.files | write(document, trainer.default_root_dir)

    @staticmethod
    def _forget_laps(trainer: Trainer) -> None:
        """What comes next is another run's."""
        for observer in observers_of(trainer):
            observer.laps.clear()

    def __getstate__(self) -> dict[str, Any]:
        """For a process that is spawned: reports stay with the modules of this one."""
        return vars(self) | {"_reports": {}}


def _seconds_of_observers(trainer: Trainer) -> float:
    return sum(lap.seconds for o in observers_of(trainer) for lap in o.laps.values())
