"""CausalLM under FSDP2, on two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file

from lightning_prune.anatomy import Anatomy
from lightning_prune.models import CausalLM, merged_model
from lightning_prune.models.sharding import data_mesh
from lightning_prune.surgery import shrink
from tests.models.test_causal_lm import QUIET, loader, module, trainer
from tests.processes import Pair
from tests.tiny import tiny_plan

pytestmark = QUIET


def pruned(**settings: Any) -> CausalLM:
    """A model whose first block is without attention, and the second without an MLP."""
    made = module(adapter="lora", learning_rate=1e-2, **settings)
    shrink(Anatomy(made.base), tiny_plan(made.base, group={0: []}, neuron={1: []}))
    return made


def fit_sharded(folder: Path) -> tuple[dict[str, float], bool]:
    """What is validated after training, and whether this process has the merged model."""
    made = pruned(gradient_checkpointing=True)
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    fit = trainer(folder, strategy=strategy, devices=2)
    fit.fit(made, loader(windows=8, batch_size=4))
    (result,) = fit.validate(made, loader(windows=8), verbose=False)
    merged = merged_model(made)
    if merged is not None:
        merged.save_pretrained(folder)
    return dict(result), merged is not None


def test_two_sharded_processes_give_the_model_that_one_process_gives(
    tmp_path: Path, pair: Pair
) -> None:
    """With the same windows in each step: the same perplexity and the same merged weights.

    Also of a model with empty weights, where attention and MLP were taken out.
    """
    single = pruned()
    fit = trainer()
    fit.fit(single, loader(windows=8, batch_size=8))
    (expected,) = fit.validate(single, loader(windows=8), verbose=False)

    (first, has_merged), (second, has_merged_too) = pair.run(fit_sharded, tmp_path).results
    assert (has_merged, has_merged_too) == (True, False)
    assert first == pytest.approx(expected, rel=1e-4)
    assert second == first
    weights = merged_model(single).state_dict()
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-4)


def test_tensor_parallelism_is_refused_with_the_two_numbers_to_set():
    """It is what ModelParallelStrategy asks for by default."""
    mesh = {"tensor_parallel": FakeAxis(2), "data_parallel": FakeAxis(1)}
    with pytest.raises(ValueError, match="strategy: fsdp2"):
        data_mesh(mesh)


class FakeAxis:
    """One axis of a device mesh, without the processes."""

    def __init__(self, size: int) -> None:
        self._size = size

    def size(self) -> int:
        return self._size
