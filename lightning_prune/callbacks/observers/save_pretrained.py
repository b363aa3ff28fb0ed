"""Leave Hugging Face folders behind: the pruned model, and the recovered one."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from transformers import PreTrainedModel

from lightning_prune import distributed
from lightning_prune.callbacks.base import methods_of
from lightning_prune.callbacks.early import checkpoint_of
from lightning_prune.callbacks.observers.base import PruneObserver, report_of
from lightning_prune.checkpoints.folder import check_replaceable
from lightning_prune.checks import known_arguments
from lightning_prune.export.hf import save
from lightning_prune.models.module import PrunableModule
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

    @known_arguments
    def __init__(self, folder: str | None = None, pruned: bool = True) -> None:
        self.folder = folder
        self.pruned = pruned
        self.saved: dict[str, Path] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse folders that must not be replaced."""
        if stage == "fit":
            if isinstance(pl_module, PrunableModule):
                self.load(pl_module)  # it may come with a plan
            self._check(trainer, pl_module)

    def on_prune_start(self, trainer: Trainer, pl_module: PrunableModule) -> None:
        """Refuse them early also where the method stands before this callback."""
        self._check(trainer, pl_module)

    def on_prune_end(self, trainer: Trainer, pl_module: PrunableModule, plan: Plan) -> None:
        """Save the pruned model, when the last method is done.

        A run that goes on from a checkpoint has saved it before.
        """
        if not self.pruned or not all(m.has_pruned(pl_module) for m in methods_of(trainer)):
            return
        folder = self._root(trainer) / "pruned"
        if checkpoint_of(trainer) is not None and distributed.once(
            lambda: _is_of(folder, pl_module.plan)
        ):
            self.saved["pruned"] = folder
            return
        self._save(trainer, pl_module, pl_module.base, "pruned")

    def on_recovery_end(
        self, trainer: Trainer, pl_module: PrunableModule, model: PreTrainedModel | None
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
        self, trainer: Trainer, pl_module: PrunableModule, model: nn.Module | None, name: str
    ) -> None:
        folder = self._root(trainer) / name

        def write() -> None:
            assert model is not None, "process 0 has the model"
            report = report_of(trainer, pl_module)
            beside = {"tokenizer": pl_module.tokenizer, "processor": pl_module.processor}
            save(model, folder, pl_module.plan, report=report, **beside)

        with self.timed(f"saving {name}"):
            distributed.once(write)
        self.saved[name] = folder
        rank_zero_info(f"Saved {folder}")

    def _root(self, trainer: Trainer) -> Path:
        return Path(self.folder or trainer.default_root_dir)


def _is_of(folder: Path, plan: Plan | None) -> bool:
    """Whether a folder holds a model that was pruned by this plan."""
    try:
        return plan is not None and Plan.load(folder).fingerprint() == plan.fingerprint()
    except (FileNotFoundError, ValueError):
        return False
