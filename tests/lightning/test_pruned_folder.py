"""Recovery in a run of its own, from the folder of a pruned model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lightning_prune
from lightning_prune import CausalLM, GQATaylor, Plan, SavePretrained, SparseGPT, Wanda
from tests.lightning.runs import checkpoints, make_data, make_trainer
from tests.lightning.test_lifecycle import zeros_hold

METHODS = {
    "masked": lambda: [Wanda(pattern="2:4", exclude="*.down_proj")],
    "cut and masked": lambda: [GQATaylor(ratio=0.25, layer_end=2), Wanda(sparsity=0.5)],
    "corrected": lambda: [SparseGPT(sparsity=0.5)],
}


def pruned(root: Path, model: Path, text: Path, methods: list[Any]) -> Path:
    """The folder of a pruned model that was not trained."""
    trainer = make_trainer(root, *methods, SavePretrained(), steps=0)
    trainer.fit(CausalLM(str(model)), make_data(text))
    return root / "pruned"


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        *(("masked", None), ("masked", "lora")),
        *(("cut and masked", "lora"), ("cut and masked", "qlora")),
        *(("corrected", None), ("corrected", "qlora")),
    ],
)
def test_a_later_run_keeps_the_zeros_of_the_plan_in_the_folder(
    tmp_path: Path, model_folder: Path, text_file: Path, kind: str, adapter: Any
) -> None:
    """No method is named again; the plan goes on to the recovered folder."""
    source = pruned(tmp_path / "first", model_folder, text_file, METHODS[kind]())
    before = Plan.load(source)
    module = CausalLM(str(source), adapter=adapter, learning_rate=1e-2)
    trainer = make_trainer(tmp_path / "second", SavePretrained(), steps=2)
    trainer.fit(module, make_data(text_file))
    folder = tmp_path / "second" / "recovered"
    recovered = lightning_prune.load(folder)
    assert zeros_hold(recovered, before)
    assert Plan.load(folder).fingerprint() == before.fingerprint()
    start = dict(lightning_prune.load(source).named_parameters())
    moved = [n for n, p in recovered.named_parameters() if not torch.equal(p, start[n])]
    assert set(before.mask_names) <= set(moved)


def test_such_a_run_goes_on_from_its_checkpoint(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """The plan is read from the folder again; bit for bit the same weights."""
    source = pruned(tmp_path / "first", model_folder, text_file, METHODS["cut and masked"]())

    def fit(root: Path, steps: int, **settings: Any) -> CausalLM:
        torch.manual_seed(0)
        module = CausalLM(str(source), adapter="lora", learning_rate=1e-2)
        make_trainer(root, checkpoints(root), steps=steps).fit(
            module, make_data(text_file), **settings
        )
        return module

    whole = fit(tmp_path / "whole", 4).state_dict()
    fit(tmp_path / "cut", 2)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    again = fit(tmp_path / "cut", 4, ckpt_path=str(last)).state_dict()
    torch.testing.assert_close(again, whole, rtol=0, atol=0)


def test_a_folder_whose_weights_are_not_those_of_its_plan_is_refused(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Before training, with the weight's name: a zero that is none would be a surprise later."""
    source = pruned(tmp_path, model_folder, text_file, METHODS["masked"]())
    weights = load_file(source / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0] = 1.0
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"model.safetensors is not the file that was saved"):
        CausalLM(str(source)).load()
    (source / "checksums.json").unlink()
    with pytest.raises(ValueError, match=r"in the folder .*not zero: 16 in .*1.mlp.up_proj"):
        CausalLM(str(source)).load()
