"""Leave Hugging Face folders behind: the pruned model, and the recovered one."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_prune import distributed, export
from lightning_prune.callbacks.base import PruneObserver
from lightning_prune.models import CausalLM, merged_model
from lightning_prune.plan import Plan

__all__ = ["SavePretrained"]


class SavePretrained(PruneObserver):
    """Save the model as a Hugging Face folder, right after pruning and after training.

    `pruned/` is written when pruning is done, before any training. When training ends, the model
    with its adapter merged goes to `recovered/`, or to `model/` if nothing was pruned. Each folder
    holds weights, config, tokenizer, plan and a model card, and loads with `from_pretrained`.

    Args:
        folder: where the folders are made; None: the run's folder (`trainer.default_root_dir`).
        pruned: whether to save the pruned model before training.
    """

    def __init__(self, folder: str | None = None, pruned: bool = True) -> None:
        self.folder = folder
        self.pruned = pruned

    def on_prune_end(self, trainer: Trainer, pl_module: CausalLM, plan: Plan) -> None:
        """Save the pruned model."""
        if self.pruned and trainer.is_global_zero:
            self._save(trainer, pl_module, pl_module.base, "pruned")
        distributed.barrier()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the trained model, merged."""
        assert isinstance(pl_module, CausalLM)
        plan = pl_module.plans[-1] if pl_module.plans else None
        model = merged_model(pl_module, plan)
        if model is not None:
            self._save(trainer, pl_module, model, "recovered" if plan else "model")
        distributed.barrier()

    def _save(self, trainer: Trainer, pl_module: CausalLM, model: nn.Module, name: str) -> None:
        folder = Path(self.folder or trainer.default_root_dir) / name
        plan = pl_module.plans[-1] if pl_module.plans else None
        export.save(model, folder, plan=plan, tokenizer=pl_module.tokenizer)
        rank_zero_info(f"Saved {folder}")
