"""Leave Hugging Face folders behind: the pruned model, and the recovered one."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from transformers import PreTrainedModel

from lightning_prune import distributed
from lightning_prune.callbacks.base import PruneObserver, methods_of
from lightning_prune.checkpoints.folder import check_replaceable
from lightning_prune.export.hf import save
from lightning_prune.models import CausalLM
from lightning_prune.plan import Plan

__all__ = ["SavePretrained"]


class SavePretrained(PruneObserver):
    """Save the model as a Hugging Face folder, right after pruning and after training.

    `pruned/` is written when pruning is done, before any training. When training ends, the model
    with its adapter merged goes to `recovered/`, or to `model/` if nothing was pruned, neither now
    nor in the run that it comes from. With a ModelCheckpoint that has a `monitor`, it is that of
    the best weights, else of the last, and the module holds what was saved. Each folder
    holds weights, config, tokenizer, plan, report and a model card, and loads with
    `from_pretrained`.

    Attributes:
        saved: the folders that were written, by name.

    Args:
        folder: where the folders are made; None: the run's folder (`trainer.default_root_dir`).
        pruned: whether to save the pruned model before training.
    """

    saves = True

    def __init__(self, folder: str | None = None, pruned: bool = True) -> None:
        self.folder = folder
        self.pruned = pruned
        self.saved: dict[str, Path] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse folders that must not be replaced."""
        if stage == "fit":
            if isinstance(pl_module, CausalLM):
                pl_module.load()  # it may come with a plan
            self._check(trainer, pl_module)

    def on_prune_start(self, trainer: Trainer, pl_module: CausalLM) -> None:
        """Refuse them early also where the method stands before this callback."""
        self._check(trainer, pl_module)

    def on_prune_end(self, trainer: Trainer, pl_module: CausalLM, plan: Plan) -> None:
        """Save the pruned model, when the last method is done."""
        if self.pruned and all(method.has_pruned(pl_module) for method in methods_of(trainer)):
            self._save(trainer, pl_module, pl_module.base, "pruned")

    def on_recovery_end(
        self, trainer: Trainer, pl_module: CausalLM, model: PreTrainedModel | None
    ) -> None:
        """Save the trained model, merged."""
        self._save(trainer, pl_module, model, "recovered" if pl_module.plans else "model")

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        prunes = methods_of(trainer) or getattr(pl_module, "plans", [])
        names = ("pruned",) * self.pruned + ("recovered",) if prunes else ("model",)

        def check() -> None:
            for name in names:
                check_replaceable(self._root(trainer) / name)

        distributed.once(check)

    def _save(
        self, trainer: Trainer, pl_module: CausalLM, model: nn.Module | None, name: str
    ) -> None:
        folder = self._root(trainer) / name

        def write() -> None:
            assert model is not None, "process 0 has the model"
            plan, report = pl_module.plan, pl_module.report
            save(model, folder, plan, pl_module.tokenizer, report)

        distributed.once(write)
        self.saved[name] = folder
        rank_zero_info(f"Saved {folder}")

    def _root(self, trainer: Trainer) -> Path:
        return Path(self.folder or trainer.default_root_dir)
