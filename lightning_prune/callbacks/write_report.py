"""Measure what was gained and lost, and leave it in the run's folder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from transformers import PreTrainedModel

from lightning_prune import distributed
from lightning_prune.callbacks.base import PruneObserver, methods_of
from lightning_prune.callbacks.evaluate import Evaluate
from lightning_prune.callbacks.measuring import (
    Batch,
    block_shapes,
    decoding,
    validation_batches,
)
from lightning_prune.callbacks.run_facts import (
    asked_and_done,
    configuration,
    files,
    importance_of_blocks,
    new_report,
    provenance,
)
from lightning_prune.evaluation import Evaluation, continuation, perplexity, tokens_per_second
from lightning_prune.models import CausalLM
from lightning_prune.models.zeros import check_zeros
from lightning_prune.plan import Plan
from lightning_prune.report import Report, StageMetrics, print_report

__all__ = ["WriteReport"]

CURVES = ("train_loss", "val_loss", "val_perplexity")
POINTS = 1000
"""So many points of a curve are kept; every second goes when there are more."""


class WriteReport(PruneObserver):
    """Measure the dense, the pruned and the recovered model, and report them side by side.

    Leaves `report.html`, `report.json` and `structure.svg` in the run's folder, and prints a table
    when the run ends. Perplexity is that of the validation windows, as many as `limit_val_batches`
    lets through (all of them where it is 0); without validation data it is left out. The recovered
    model is measured as it is saved, with its adapter merged. Process 0 measures, block by block,
    while the others wait. What an `Evaluate` in the same Trainer finds is reported too.

    The curves of the training, at every `log_every_n_steps`-th step, are part of checkpoints.

    Args:
        speed: also measure tokens per second, of a forward pass and of generation with a KV cache,
            of each model on the device at hand.
        prompt: tokens of the first validation window that each model goes on from; 0: none.
    """

    reports: ClassVar[bool] = True

    def __init__(self, speed: bool = True, prompt: int = 24) -> None:
        self.speed = speed
        self.prompt = prompt
        self._curves: dict[str, dict[int, float]] = {}
        self._parameters = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start new curves; a checkpoint brings its own afterwards."""
        if stage == "fit":
            self._curves = {}

    def on_prune_start(self, trainer: Trainer, pl_module: CausalLM) -> None:
        """Measure the dense model; with several methods, before the first one."""

        def begin() -> None:
            if pl_module.report is None:
                pl_module.report = new_report(pl_module)
                self._measure("dense", trainer, pl_module, pl_module.base)
            self._parameters = sum(p.numel() for p in pl_module.base.parameters())

        distributed.once(begin)

    def on_prune_end(self, trainer: Trainer, pl_module: CausalLM, plan: Plan) -> None:
        """Measure the pruned model, and write the report as far as it goes."""

        def go_on() -> None:
            report = self._measure("pruned", trainer, pl_module, pl_module.base)
            methods = methods_of(trainer)
            report.method = ", ".join(map(repr, methods))
            done = [method for method in methods if method.has_pruned(pl_module)]
            after = report.stages["pruned"].parameters
            report.asked.append(asked_and_done(done[-1], plan, self._parameters, after))
            report.importance = importance_of_blocks(pl_module.plans)
            report.provenance = provenance(pl_module)
            report.configuration = configuration(trainer, pl_module)
            self._write(trainer, report)

        distributed.once(go_on)

    def on_recovery_end(
        self, trainer: Trainer, pl_module: CausalLM, model: PreTrainedModel | None
    ) -> None:
        """Measure the recovered model as it will be saved."""

        def go_on() -> None:
            assert model is not None, "process 0 has the model"
            if pl_module.report is not None:
                report = self._measure("recovered", trainer, pl_module, model)
                if pl_module.plan is not None and pl_module.plan.mask_names:
                    zeros = check_zeros(model, pl_module.plan, "after recovery")
                    report.settings |= {"planned_zeros": zeros, "revived_zeros": 0}
                self._write(trainer, report)

        distributed.once(go_on)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write and print the whole report."""

        def end() -> None:
            report = getattr(pl_module, "report", None)
            if report is not None:
                self._write(trainer, report)
                print_report(report)

        if stage == "fit":
            distributed.once(end)

    # --- curves ---

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss where it is logged."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._note(trainer, "train_loss")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note loss and perplexity of the validation text."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._note(trainer, "val_loss", "val_perplexity")

    def _note(self, trainer: Trainer, *names: str) -> None:
        for name in names:
            if trainer.is_global_zero and name in trainer.callback_metrics:
                curve = self._curves.setdefault(name, {})
                curve[trainer.global_step] = float(trainer.callback_metrics[name])
                if len(curve) > POINTS:
                    self._curves[name] = dict(list(curve.items())[::2])

    def state_dict(self) -> dict[str, Any]:
        """The curves so far."""
        return {"curves": {name: list(curve.items()) for name, curve in self._curves.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curves of the checkpoint."""
        self._curves = {name: dict(points) for name, points in state_dict["curves"].items()}

    # --- measuring ---

    def _measure(
        self, stage: str, trainer: Trainer, pl_module: CausalLM, model: PreTrainedModel
    ) -> Report:
        report = pl_module.report
        assert report is not None, "begun before pruning"
        batches = validation_batches(trainer)
        device = trainer.strategy.root_device
        parameters = list(model.parameters())
        window = batches[0]["input_ids"].shape[1] if batches else None
        begun = getattr(getattr(trainer, "datamodule", None), "begun_with", None)
        report.settings = {
            "window": window,
            "begin": begun("validation") if begun and batches else "",
            "validation_windows": sum(len(batch["input_ids"]) for batch in batches),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "dtype": str(parameters[0].dtype).removeprefix("torch."),
        }
        report.stages[stage] = StageMetrics(
            perplexity=perplexity(model, batches, device) if batches else None,
            parameters=sum(p.numel() for p in parameters),
            nonzero=sum(int(p.count_nonzero()) for p in parameters),
            bytes=sum(p.numel() * p.element_size() for p in parameters),
            tokens_per_second=(
                tokens_per_second(model, batches[0], device) if batches and self.speed else None
            ),
        )
        gone = pl_module.plan.dropped if pl_module.plan is not None else set()
        report.blocks = block_shapes(model, report.blocks, gone)
        found = report.evaluations[stage] = Evaluation()
        if self.speed and window is not None:
            found.speeds = decoding(model, window, device)
        if batches and self.prompt and pl_module.tokenizer is not None:
            self._say(stage, report, pl_module, model, batches[0], device)
        return report

    def _say(
        self,
        stage: str,
        report: Report,
        pl_module: CausalLM,
        model: PreTrainedModel,
        batch: Batch,
        device: torch.device,
    ) -> None:
        """How the model goes on from the beginning of the first window."""
        prompt_T = batch["input_ids"][0, : self.prompt]
        assert pl_module.tokenizer is not None
        said = continuation(model, pl_module.tokenizer, prompt_T, device)
        report.samples["prompt"] = str(pl_module.tokenizer.decode(prompt_T))
        if said is not None:
            report.samples[stage] = said.text
            report.evaluations[stage].answers.insert(0, said)

    def _write(self, trainer: Trainer, report: Report) -> None:
        report.curves = {name: list(curve.items()) for name, curve in self._curves.items()}
        _add_evaluations(trainer, report)
        report.files = files(trainer)
        report.write(trainer.default_root_dir)


def _add_evaluations(trainer: Trainer, report: Report) -> None:
    """Enter what the callbacks that evaluate have found."""
    evaluations = [c for c in trainer.callbacks if isinstance(c, Evaluate)]  # type: ignore[attr-defined]
    for stage, found in report.evaluations.items():
        judged = [c.results[stage] for c in evaluations if stage in c.results]
        found.perplexities = [one for result in judged for one in result.perplexities]
        found.tasks = [one for result in judged for one in result.tasks]
        found.answers += [
            one for result in judged for one in result.answers if one not in found.answers
        ]
