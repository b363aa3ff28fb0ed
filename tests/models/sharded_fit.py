"""Train the tiny model on two processes with FSDP2 and save the merged model; run by a test."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_prune.models import merged_model
from tests.models.test_causal_lm import loader, module, trainer


def main(folder: Path) -> None:
    made = module(adapter="lora", learning_rate=1e-2, gradient_checkpointing=True)
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
