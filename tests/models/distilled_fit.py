"""Distil the tiny model on some processes; run by a test."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from lightning_prune import CausalLM, Distillation, GQATaylor, TextData
from lightning_prune.models import merged_model
from tests.lightning.runs import Losses, make_trainer


def main(root: Path, model: str, text: str, strategy: str, devices: int, batch_size: int) -> None:
    torch.manual_seed(0)
    module, losses = CausalLM(model, distillation=Distillation(hidden=0.1, chunk=50)), Losses()
    settings: dict[str, Any] = {"strategy": strategy, "devices": devices, "limit_val_batches": 0}
    trainer = make_trainer(
        root, GQATaylor(ratio=0.25), losses, steps=3, enable_checkpointing=False, **settings
    )
    trainer.fit(module, TextData(text, nsamples=8, seqlen=32, batch_size=batch_size))
    merged = merged_model(module)
    mean = {step: trainer.strategy.reduce(torch.tensor(v)) for step, v in losses.values.items()}
    if merged is not None:
        merged.save_pretrained(root / "model")
        kept = {step: float(value) for step, value in mean.items()}
        (root / "losses.json").write_text(json.dumps(kept))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5]), int(sys.argv[6]))
