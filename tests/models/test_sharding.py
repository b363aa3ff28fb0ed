"""CausalLM under FSDP2, on two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file

from lightning_prune import Wanda, prune, save, surgery
from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints.writer import ShardWriter
from lightning_prune.evaluation import perplexity
from lightning_prune.models import CausalLM, merged_model
from lightning_prune.models.recovery import merge
from lightning_prune.models.sharding import data_mesh
from lightning_prune.plan.join import joined
from lightning_prune.surgery import shrink
from tests.models.test_causal_lm import QUIET, loader, module, trainer
from tests.processes import Pair
from tests.tiny import tiny_batch, tiny_plan

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


def fit_from_folder(root: Path, model: Path, adapter: Any, placement: Any) -> dict[str, float]:
    """What is validated after training; the merged model is left in a folder, by placement."""
    torch.manual_seed(0)
    made = CausalLM(str(model), adapter=adapter, placement=placement, learning_rate=1e-2)
    fit = trainer(root, strategy="fsdp2", devices=2)
    fit.fit(made, loader(windows=8, batch_size=4))
    (result,) = fit.validate(made, loader(windows=8), verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        if placement == "checkpoint":
            patch.setattr(merge, "_gathered", None)  # all weights of the model, in one process
        merged = merged_model(made)
    if merged is not None:
        assert not list(root.glob(".merged*"))
        assert perplexity(merged, [{"input_ids": tiny_batch(2, 12)}]) > 1
        save(merged, root / placement, made.plan)
    return dict(result)


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_from_files_to_files_no_process_holds_the_model(
    adapter: str | None, tmp_path: Path, pair: Pair
) -> None:
    """The bits are those of a model in memory: masked, a block without attention, head tied."""
    base = module().base
    surgery.apply(Anatomy(base), cut := tiny_plan(base, group={0: []}))
    masked = prune(base, Wanda(sparsity=0.5), [{"input_ids": tiny_batch(4, 12)}])
    model = save(base, tmp_path / "model", joined(cut, masked))
    placements = ("memory", "checkpoint")
    results = [
        pair.run(fit_from_folder, tmp_path, model, adapter, placement).results
        for placement in placements
    ]
    assert results[0] == results[1]
    inside, outside = (load_file(tmp_path / p / "model.safetensors") for p in placements)
    assert inside.keys() == outside.keys()
    for name, tensor in inside.items():
        assert torch.equal(outside[name], tensor)
    assert (inside["model.layers.1.mlp.up_proj.weight"] == 0).float().mean() == 0.5


def merging_fails(root: Path, model: Path) -> str:
    made = CausalLM(str(model), adapter="lora", placement="checkpoint")
    fit = trainer(root, strategy="fsdp2", devices=2)
    fit.fit(made, loader(windows=8, batch_size=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShardWriter, "add", full)
        try:
            merged_model(made)
        except OSError as error:
            return str(error)
    return ""


def full(*_: Any) -> None:
    raise OSError("the disk is full")


def test_an_error_while_it_is_merged_is_raised_in_both(tmp_path: Path, pair: Pair) -> None:
    """And nothing is left in the run's folder."""
    model = save(module().base, tmp_path / "model")
    assert pair.run(merging_fails, tmp_path, model).results == ["the disk is full"] * 2
    assert not list(tmp_path.glob(".merged*"))


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
