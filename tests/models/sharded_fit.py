"""Train the tiny model on two processes with FSDP2 and save the merged model; run by a test."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_prune.anatomy import Anatomy
from lightning_prune.models import CausalLM, merged_model
from lightning_prune.surgery import shrink
from tests.models.test_causal_lm import loader, module, trainer
from tests.tiny import tiny_plan


def pruned(**settings: Any) -> CausalLM:
    """A model whose first block is without attention, and the second without an MLP."""
    made = module(adapter="lora", learning_rate=1e-2, **settings)
    shrink(Anatomy(made.base), tiny_plan(made.base, group={0: []}, neuron={1: []}))
    return made


def main(folder: Path) -> None:
    made = pruned(gradient_checkpointing=True)
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    fit = trainer(folder, strategy=strategy, devices=2)
    fit.fit(made, loader(windows=8, batch_size=4))
    (result,) = fit.validate(made, loader(windows=8), verbose=False)
    merged = merged_model(made)
    assert (merged is None) == (fit.global_rank != 0)
    if merged is not None:
        merged.save_pretrained(folder)
        (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
