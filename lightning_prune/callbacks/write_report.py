"""Measure what was gained and lost, and leave it in the run's folder."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_prune import distributed
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import PruneObserver, PruningCallback
from lightning_prune.evaluation import continuation, perplexity, tokens_per_second
from lightning_prune.models import CausalLM, merged_model
from lightning_prune.plan import Plan
from lightning_prune.report import BlockShape, Report, StageMetrics, print_report

__all__ = ["WriteReport"]


class WriteReport(PruneObserver):
    """Measure the dense, the pruned and the recovered model, and report them side by side.

    Leaves `report.json` and `structure.svg` in the run's folder, and prints a table when the run
    ends. Perplexity is that of the validation windows; the recovered model is measured as it is
    saved, with its adapter merged. Process 0 measures, block by block, while the others wait.

    Args:
        speed: also measure tokens per second, forward, of each model on the device at hand.
        prompt: tokens of the first validation window that each model goes on from; 0: none.
    """

    def __init__(self, speed: bool = True, prompt: int = 24) -> None:
        self.speed = speed
        self.prompt = prompt
        self._samples: dict[str, str] = {}
        self._stages: dict[str, StageMetrics] = {}
        self._dense: list[tuple[int, int, int]] = []
        self._blocks: list[BlockShape] = []
        self._settings: dict[str, Any] = {}

    def on_prune_start(self, trainer: Trainer, pl_module: CausalLM) -> None:
        """Measure the dense model; with several methods, before the first one."""
        if trainer.is_global_zero and not self._dense:
            self._dense = _shapes(pl_module.base)
            self._measure("dense", trainer, pl_module, pl_module.base)
        distributed.barrier()

    def on_prune_end(self, trainer: Trainer, pl_module: CausalLM, plan: Plan) -> None:
        """Measure the pruned model, and write the report as far as it goes."""
        if trainer.is_global_zero:
            self._measure("pruned", trainer, pl_module, pl_module.base)
            self._blocks = _block_shapes(pl_module.base, self._dense)
            self._report(trainer, pl_module).write(trainer.default_root_dir)
        distributed.barrier()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the recovered model as it will be saved."""
        assert isinstance(pl_module, CausalLM)
        if not pl_module.plans:
            return
        model = merged_model(pl_module, pl_module.plans[-1])
        if model is not None:
            self._measure("recovered", trainer, pl_module, model)
            self._blocks = _block_shapes(model, self._dense)
        distributed.barrier()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write and print the whole report."""
        if stage == "fit" and self._stages and trainer.is_global_zero:
            assert isinstance(pl_module, CausalLM)
            report = self._report(trainer, pl_module)
            report.write(trainer.default_root_dir)
            print_report(report)

    def _measure(self, stage: str, trainer: Trainer, pl_module: CausalLM, model: nn.Module) -> None:
        batches = _validation_batches(trainer)
        device = trainer.strategy.root_device
        parameters = list(model.parameters())
        self._settings = {
            "window": batches[0]["input_ids"].shape[1] if batches else None,
            "validation_windows": sum(len(batch["input_ids"]) for batch in batches),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "dtype": str(parameters[0].dtype).removeprefix("torch."),
        }
        self._stages[stage] = StageMetrics(
            perplexity=perplexity(model, batches, device) if batches else None,
            parameters=sum(p.numel() for p in parameters),
            nonzero=sum(int(p.count_nonzero()) for p in parameters),
            bytes=sum(p.numel() * p.element_size() for p in parameters),
            tokens_per_second=(
                tokens_per_second(model, batches[0], device) if batches and self.speed else None
            ),
        )

        if batches and self.prompt and pl_module.tokenizer is not None:
            prompt_T = batches[0]["input_ids"][0, : self.prompt]
            said = continuation(model, pl_module.tokenizer, prompt_T, device)
            self._samples["prompt"] = str(pl_module.tokenizer.decode(prompt_T))
            self._samples |= {stage: said} if said is not None else {}

    def _report(self, trainer: Trainer, pl_module: CausalLM) -> Report:
        root = Path(trainer.default_root_dir)
        methods = [c for c in trainer.callbacks if isinstance(c, PruningCallback)]  # type: ignore[attr-defined]
        names = ("config.yaml", "plan", "report.json", "structure.svg", "pruned", "recovered")
        return Report(
            model=str(pl_module.path),
            method=", ".join(map(repr, methods)),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            stages=dict(self._stages),
            blocks=self._blocks,
            settings=self._settings,
            samples=dict(self._samples),
            versions={
                name: version(name) for name in ("torch", "transformers", "lightning", "peft")
            },
            files={name: str(root / name) for name in names if (root / name).exists()},
        )


def _validation_batches(trainer: Trainer) -> list[dict[str, torch.Tensor]]:
    """Every validation window, whatever share of them this process validates on."""
    data = getattr(trainer, "datamodule", None)
    loader = data.val_dataloader() if data is not None else None
    if loader is None:
        return []
    return list(
        DataLoader(loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn)
    )


def _shapes(model: nn.Module) -> list[tuple[int, int, int]]:
    return [(block.heads, block.kv_heads, block.width) for block in Anatomy(model).blocks]


def _block_shapes(model: nn.Module, dense: list[tuple[int, int, int]]) -> list[BlockShape]:
    return [
        BlockShape(
            index=block.index,
            heads=block.heads,
            kv_heads=block.kv_heads,
            width=block.width,
            dense_heads=before[0],
            dense_kv_heads=before[1],
            dense_width=before[2],
            sparsity={
                site.table.path: float((site.module.weight == 0).float().mean())
                for site in block.sites
            },
        )
        for block, before in zip(Anatomy(model).blocks, dense, strict=True)
    ]
