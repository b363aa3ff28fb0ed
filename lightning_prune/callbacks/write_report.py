"""Measure what was gained and lost, and leave it in the run's folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from transformers import PreTrainedModel

from lightning_prune import distributed
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import PruneObserver, PruningCallback, methods_of
from lightning_prune.callbacks.save_pretrained import SavePretrained
from lightning_prune.data.loaders import ShardSampler
from lightning_prune.evaluation import continuation, perplexity, tokens_per_second
from lightning_prune.models import CausalLM
from lightning_prune.plan import Plan
from lightning_prune.report import BlockShape, Report, StageMetrics, print_report

__all__ = ["WriteReport"]

Batch = Mapping[str, torch.Tensor]


class WriteReport(PruneObserver):
    """Measure the dense, the pruned and the recovered model, and report them side by side.

    Leaves `report.json` and `structure.svg` in the run's folder, and prints a table when the run
    ends. Perplexity is that of the validation windows, as many as `limit_val_batches` lets through
    (all of them where it is 0); without validation data it is left out. The recovered model is
    measured as it is saved, with its adapter merged. Process 0 measures, block by block, while the
    others wait.

    Args:
        speed: also measure tokens per second, forward, of each model on the device at hand.
        prompt: tokens of the first validation window that each model goes on from; 0: none.
    """

    def __init__(self, speed: bool = True, prompt: int = 24) -> None:
        self.speed = speed
        self.prompt = prompt

    def on_prune_start(self, trainer: Trainer, pl_module: CausalLM) -> None:
        """Measure the dense model; with several methods, before the first one."""

        def begin() -> None:
            if pl_module.report is None:
                pl_module.report = _new_report(pl_module)
                self._measure("dense", trainer, pl_module, pl_module.base)

        distributed.once(begin)

    def on_prune_end(self, trainer: Trainer, pl_module: CausalLM, plan: Plan) -> None:
        """Measure the pruned model, and write the report as far as it goes."""

        def go_on() -> None:
            report = self._measure("pruned", trainer, pl_module, pl_module.base)
            report.method = ", ".join(map(repr, methods_of(trainer)))
            self._write(trainer, report)

        distributed.once(go_on)

    def on_recovery_end(
        self, trainer: Trainer, pl_module: CausalLM, model: PreTrainedModel | None
    ) -> None:
        """Measure the recovered model as it will be saved."""

        def go_on() -> None:
            assert model is not None, "process 0 has the model"
            if pl_module.report is not None:
                self._measure("recovered", trainer, pl_module, model)

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

    def _measure(
        self, stage: str, trainer: Trainer, pl_module: CausalLM, model: nn.Module
    ) -> Report:
        report = pl_module.report
        assert report is not None, "begun before pruning"
        batches = _validation_batches(trainer)
        device = trainer.strategy.root_device
        parameters = list(model.parameters())
        report.settings = {
            "window": batches[0]["input_ids"].shape[1] if batches else None,
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
        report.blocks = _block_shapes(model, report.blocks, gone)
        if batches and self.prompt and pl_module.tokenizer is not None:
            prompt_T = batches[0]["input_ids"][0, : self.prompt]
            said = continuation(model, pl_module.tokenizer, prompt_T, device)
            report.samples["prompt"] = str(pl_module.tokenizer.decode(prompt_T))
            report.samples |= {stage: said.text} if said is not None else {}
        return report

    def _write(self, trainer: Trainer, report: Report) -> None:
        report.files = _files(trainer)
        report.write(trainer.default_root_dir)


def _new_report(pl_module: CausalLM) -> Report:
    return Report(
        model=str(pl_module.path or pl_module.base.config.model_type),
        method="",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        stages={},
        blocks=[],
        versions={name: version(name) for name in ("torch", "transformers", "lightning", "peft")},
    )


def _files(trainer: Trainer) -> dict[str, str]:
    """What this run has written so far; what an earlier one left there is not of this run."""
    written: dict[str, str | Path | None] = {
        "config.yaml": Path(trainer.default_root_dir) / "config.yaml"
    }
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, PruningCallback):
            written[callback.folder(trainer).name] = callback.folder(trainer)
        elif isinstance(callback, SavePretrained):
            written |= callback.saved
        elif isinstance(callback, ModelCheckpoint) and trainer.global_step > 0:
            written["checkpoints"] = _as_asked(callback.dirpath, trainer)
    for logger in trainer.loggers:
        written.setdefault("logs", logger.log_dir)
    return {name: str(path) for name, path in written.items() if path and Path(path).exists()}


def _as_asked(path: str | Path | None, trainer: Trainer) -> Path | None:
    """A path that Lightning made absolute, as the run's folder was given."""
    root = Path(trainer.default_root_dir)
    if path is None or not Path(path).is_relative_to(root.resolve()):
        return Path(path) if path else None
    return root / Path(path).relative_to(root.resolve())


def _validation_batches(trainer: Trainer) -> list[Batch]:
    """The validation windows, whatever share of them this process validates on."""
    # Where a datamodule, the module itself, or loaders that were given to `fit` are all the same.
    source = trainer.fit_loop.epoch_loop.val_loop._data_source
    if not source.is_defined():
        return []
    with isolate_rng():  # measuring does not change what is drawn in training
        loaders = CombinedLoader(source.dataloader(), "sequential").flattened
        return [batch for loader in loaders for batch in _batches(loader, trainer)]


def _batches(loader: Iterable[Any], trainer: Trainer) -> list[Batch]:
    """As many batches as the Trainer validates on: a number in each process, or a share of all."""
    if isinstance(getattr(loader, "sampler", None), (DistributedSampler, ShardSampler)):
        assert isinstance(loader, DataLoader)
        loader = DataLoader(
            loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn
        )
    found = (batch for batch in loader if isinstance(batch, Mapping) and "input_ids" in batch)
    limit = trainer.limit_val_batches
    if limit and isinstance(limit, int):
        return list(islice(found, limit * trainer.world_size))
    batches = list(found)
    return batches[: int(len(batches) * (limit or 1))]


def _block_shapes(model: nn.Module, before: list[BlockShape], gone: set[int]) -> list[BlockShape]:
    """What the blocks are now, beside what they were in the first place, as `before` knows it.

    Blocks that were taken out since, of those in `gone`, have nothing any more.
    """
    blocks = Anatomy(model).blocks
    dense = [(b.index, (b.dense_heads, b.dense_kv_heads, b.dense_width)) for b in before]
    if not before:
        indices = (i for i in range(len(blocks) + len(gone)) if i not in gone)
        dense = [(i, (b.heads, b.kv_heads, b.width)) for i, b in zip(indices, blocks, strict=True)]
    left, shapes = iter(blocks), []
    for index, counts in dense:
        block = None if index in gone else next(left)
        now = (block.heads, block.kv_heads, block.width) if block else (0, 0, 0)
        sparsity = {
            site.table.path: float((site.module.weight == 0).float().mean())
            for site in (block.sites if block else ())
            if site.module.weight.numel()
        }
        shapes.append(BlockShape(index, *now, *counts, sparsity=sparsity))
    return shapes
