"""Averages of weights in training, beside pruning and adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, callbacks

import lightning_prune
from lightning_prune import CausalLM, GQATaylor, Plan, SavePretrained, Wanda
from lightning_prune.models.averages import refuse_averages
from tests.lightning.runs import checkpoints, make_data, make_trainer
from tests.lightning.test_lifecycle import zeros_hold

pytestmark = [
    pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback"),
    pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch"),
    pytest.mark.filterwarnings("ignore:Swapping scheduler"),
    pytest.mark.filterwarnings("ignore:.*SWA.*"),
]

AVERAGES = {
    "ema": lambda: callbacks.EMAWeightAveraging(decay=0.5),
    "swa": lambda: callbacks.StochasticWeightAveraging(1e-2, swa_epoch_start=1),
}


class Weights(Callback):
    """Remembers the trained weights after every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        named = pl_module.named_parameters()
        self.seen.append({n: p.detach().clone() for n, p in named if p.requires_grad})


@pytest.mark.parametrize(
    ("kind", "adapter", "first"),
    [
        *(("ema", None, True), ("ema", "lora", False), ("ema", "qlora", True)),
        *(("swa", None, False), ("swa", "lora", True), ("swa", "qlora", False)),
    ],
)
def test_averaged_weights_keep_the_zeros(
    tmp_path: Path, model_folder: Path, text_file: Path, adapter: Any, kind: str, first: bool
) -> None:
    """Wherever the callback stands; masks and quantised weights are no part of the average."""
    method, average = Wanda(sparsity=0.5), AVERAGES[kind]()
    order = [average, method] if first else [method, average]
    module = CausalLM(str(model_folder), adapter=adapter, learning_rate=1e-2)
    trainer = make_trainer(
        tmp_path, *order, SavePretrained(), steps=-1, max_epochs=3, limit_train_batches=2
    )
    trainer.fit(module, make_data(text_file))
    recovered = lightning_prune.load(tmp_path / "recovered")
    assert zeros_hold(recovered, Plan.load(tmp_path / "plan"))


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_what_is_saved_is_the_average(
    tmp_path: Path, model_folder: Path, text_file: Path, adapter: Any
) -> None:
    """Of a model that was cut, and given its adapter, after the callback had first copied it."""
    weights = Weights()
    average = callbacks.EMAWeightAveraging(decay=0.5)
    module = CausalLM(str(model_folder), adapter=adapter, learning_rate=1e-2)
    trainer = make_trainer(tmp_path, average, GQATaylor(ratio=0.25), weights, steps=3)
    trainer.fit(module, make_data(text_file))
    first, second, third = weights.seen
    state = dict(module.named_parameters())
    for name in first:
        expected = (first[name] / 2 + second[name] / 2) / 2 + third[name] / 2
        torch.testing.assert_close(state[name].detach(), expected)


def test_an_average_goes_on_from_a_checkpoint(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """With the same weights as without a break."""

    def fit(root: Path, steps: int, **settings: Any) -> CausalLM:
        torch.manual_seed(0)
        module = CausalLM(str(model_folder), adapter="lora", learning_rate=1e-2)
        average = callbacks.EMAWeightAveraging(decay=0.5)
        trainer = make_trainer(root, Wanda(sparsity=0.5), average, checkpoints(root), steps=steps)
        trainer.fit(module, make_data(text_file), **settings)
        return module

    whole = fit(tmp_path / "whole", 4).state_dict()
    fit(tmp_path / "cut", 2)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    again = fit(tmp_path / "cut", 4, ckpt_path=str(last)).state_dict()
    torch.testing.assert_close(again, whole, rtol=0, atol=0)


def test_averages_of_a_sharded_model_are_refused(tmp_path: Path, model_folder: Path) -> None:
    """Lightning's callbacks would copy the whole model into every process."""
    module = CausalLM(str(model_folder))
    module.trainer = make_trainer(tmp_path, callbacks.EMAWeightAveraging())
    with pytest.raises(ValueError, match="EMAWeightAveraging cannot average .* strategy: ddp"):
        refuse_averages(module)
