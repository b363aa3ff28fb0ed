"""Train in two processes without a break, and again with one; run by a test."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.distributed.tensor import DTensor

from lightning_prune import CausalLM, GQATaylor, SavePretrained, Wanda, WriteReport
from tests.lightning.runs import Losses, make_data, make_trainer

SETUPS: dict[str, tuple[str, str | None, Any]] = {
    # shapes that a checkpoint has to fit
    "ddp lora": ("ddp", "lora", lambda: GQATaylor(ratio=0.25)),
    # zeros in quantised weights, in updates of sharded weights, in sharded weights
    "ddp qlora": ("ddp", "qlora", lambda: Wanda(sparsity=0.5)),
    "fsdp2 lora": ("fsdp2", "lora", lambda: Wanda(sparsity=0.5)),
    "fsdp2 dense": ("fsdp2", None, lambda: Wanda(sparsity=0.5)),
}


def zeros_hold(module: CausalLM) -> bool:
    """Whether the plan's zeros are the only ones in the weights, as they are trained."""
    if module.adapter is not None:  # the weights are frozen; merging counts the zeros
        return True
    weights, plan = dict(module.base.named_parameters()), module.plans[0]
    whole = {n: w.full_tensor() if isinstance(w, DTensor) else w for n, w in weights.items()}
    return all(torch.equal(whole[name] != 0, plan.mask(name)) for name in plan.mask_names)


def main(root: Path, model: str, text: Path, setup: str) -> None:
    strategy, adapter, method = SETUPS[setup]

    def fit(folder: Path, steps: int, **settings: Any) -> tuple[Trainer, CausalLM, Losses]:
        torch.manual_seed(0)
        module, losses = CausalLM(model, adapter=adapter, learning_rate=1e-2), Losses()
        keep = ModelCheckpoint(folder, "half", every_n_train_steps=2, save_on_train_epoch_end=False)
        # The worst is kept, so that it is not the last that is merged.
        worst = ModelCheckpoint(
            folder / "worst", monitor="val_loss", mode="max", save_on_train_epoch_end=False
        )
        callbacks = [method(), losses, keep, worst, WriteReport(speed=False), SavePretrained()]
        settings_of_all = {"limit_val_batches": 1, "val_check_interval": 1}
        trainer = make_trainer(
            folder, *callbacks, steps=steps, strategy=strategy, devices=2, **settings_of_all
        )
        trainer.fit(module, make_data(text), **settings)
        return trainer, module, losses

    _, _, full = fit(root / "full", 3)
    fit(root / "cut", 2)
    trainer, module, rest = fit(root / "cut", 3, ckpt_path=str(root / "cut" / "half.ckpt"))
    held = zeros_hold(module)  # gathers: in every process
    try:
        again = Wanda(sparsity=0.25)
        other = make_trainer(root / "cut", again, steps=3, strategy=strategy, devices=2)
        other.fit(
            CausalLM(model, adapter=adapter),
            make_data(text),
            ckpt_path=str(root / "cut" / "half.ckpt"),
        )
        refused = ""
    except ValueError as error:
        refused = str(error)
    if trainer.global_rank == 0:
        result = {"full": full.values, "rest": rest.values, "held": held, "refused": refused}
        (root / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
