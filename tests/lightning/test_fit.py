"""Pruning inside a Trainer: order, files, resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

import lightning_prune
from lightning_prune import (
    CausalLM,
    GQATaylor,
    LoRA,
    Magnitude,
    Plan,
    QLoRA,
    SavePretrained,
    SparseGPT,
    TextData,
    Wanda,
    WriteReport,
)
from tests.lightning.runs import Losses, checkpoints, make_data, make_trainer

METHODS = {
    "cut": lambda **settings: GQATaylor(ratio=0.25, **settings),
    "masked": lambda **settings: Wanda(sparsity=0.5, **settings),
    "corrected": lambda **settings: SparseGPT(sparsity=0.5, **settings),
}


@pytest.mark.parametrize(
    ("adapter", "method"),
    [
        *((None, "masked"), (None, "corrected")),
        *((LoRA(dropout=0.2), "cut"), (LoRA(dropout=0.2), "corrected")),
        *((QLoRA(dropout=0.2), "cut"), (QLoRA(dropout=0.2), "masked")),
    ],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_an_interrupted_fit_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, model_folder: Path, text_file: Path, method: str, adapter: Any
) -> None:
    """Same plan, same losses, same final weights, bit for bit, whatever dropout draws."""
    full, first, second = Losses(), Losses(stop_after=2), Losses()

    def fit(root: Path, losses: Losses, **settings: Any) -> CausalLM:
        torch.manual_seed(len(settings))  # the checkpoint brings the run's own seed
        module = CausalLM(str(model_folder), adapter=adapter, learning_rate=1e-2)
        trainer = make_trainer(root, METHODS[method](), losses, checkpoints(root), steps=4)
        trainer.fit(module, make_data(text_file), **settings)
        return module

    uninterrupted = fit(tmp_path / "full", full)
    with pytest.raises(SystemExit):
        fit(tmp_path / "cut", first)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    resumed = fit(tmp_path / "cut", second, ckpt_path=str(last))

    assert sorted(first.values) == [1, 2]
    assert sorted(second.values) == [3, 4]
    assert first.values | second.values == full.values
    expected = uninterrupted.state_dict()
    assert expected.keys() == resumed.state_dict().keys()
    for name, tensor in resumed.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_a_second_start_applies_the_saved_plan_without_calibrating(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan in the run's folder stands for the calibration that made it."""
    for attempt in range(2):
        if attempt:
            monkeypatch.setattr("lightning_prune.pipeline.prune", lambda *_: pytest.fail("pruned"))
        module = CausalLM(str(model_folder))
        make_trainer(tmp_path, Wanda(sparsity=0.5), steps=1).fit(module, make_data(text_file))


@pytest.mark.parametrize(
    "change", [{"sparsity": 0.25}, {"seed": 1}, {"nsamples": 4}], ids=lambda c: next(iter(c))
)
def test_a_plan_of_another_run_is_not_reused(
    tmp_path: Path, model_folder: Path, text_file: Path, change: dict[str, Any]
) -> None:
    """Another sparsity, seed or calibration makes another plan in the same folder."""

    def run(sparsity: float, **data: Any) -> str:
        module = CausalLM(str(model_folder))
        source = TextData(str(text_file), **({"nsamples": 8, "length": 32} | data))
        make_trainer(tmp_path, Wanda(sparsity=sparsity), steps=1).fit(module, source)
        return json.dumps(Plan.load(tmp_path / "plan").provenance["identity"])

    before = run(0.5)
    after = run(change.pop("sparsity", 0.5), **change)
    assert before != after


def test_a_run_leaves_everything_in_one_folder(
    tmp_path: Path, model_folder: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plan, report, picture, the pruned and the recovered model; and a table on the screen."""
    module = CausalLM(str(model_folder), adapter=LoRA(r=2), learning_rate=1e-2)
    # The order of the callbacks must not matter.
    callbacks = [WriteReport(), SavePretrained(), GQATaylor(ratio=0.25)]
    make_trainer(tmp_path, *callbacks).fit(module, make_data(text_file))
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["stages"]) == ["dense", "pruned", "recovered"]
    parameters = [stage["parameters"] for stage in report["stages"].values()]
    assert parameters[0] > parameters[1] == parameters[2]
    answers = {stage: found["answers"] for stage, found in report["evaluations"].items()}
    assert list(answers) == ["dense", "pruned", "recovered"]
    assert len({answer["prompt"] for [answer] in answers.values()}) == 1
    assert [block["kv_heads"] for block in report["blocks"]] == [3, 3, 3]
    assert (tmp_path / "structure.svg").exists()
    assert "recovered" in capsys.readouterr().out
    for name in ("pruned", "recovered"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert model.model.layers[0].mlp.up_proj.out_features == 17
        assert Plan.load(tmp_path / name).kept("neuron", 0).numel() == 17


def test_the_recovered_folder_holds_what_was_measured(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Perplexity of the loaded folder is the one in the report, and masked zeros stay zero."""
    module = CausalLM(str(model_folder), adapter=LoRA(r=2), learning_rate=1e-2)
    callbacks = [Wanda(sparsity=0.5), WriteReport(speed=False, prompt=0), SavePretrained()]
    make_trainer(tmp_path, *callbacks).fit(module, make_data(text_file))
    report = json.loads((tmp_path / "report.json").read_text())
    stage, settings = report["stages"]["recovered"], report["settings"]
    model = lightning_prune.load(tmp_path / "recovered")
    plan = Plan.load(tmp_path / "recovered")
    zeros = sum(int((~plan.mask(name)).sum()) for name in plan.mask_names)
    assert (settings["planned_zeros"], settings["revived_zeros"]) == (zeros, 0)
    for name, weight in model.named_parameters():
        if name in plan.mask_names:
            assert (weight[~plan.mask(name)] == 0).all()
    data = make_data(text_file).attach(module.tokenizer, 64)
    data.setup("validate")
    found = lightning_prune.evaluation.perplexity(model, data.val_dataloader())
    assert found == pytest.approx(stage["perplexity"], rel=1e-6)


def test_training_trains_every_weight_of_a_cut_model(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """The optimizer is built after the cut: no weight is left behind."""
    module = CausalLM(str(model_folder), learning_rate=1e-2)
    trainer = make_trainer(tmp_path, GQATaylor(ratio=0.25), SavePretrained(), steps=2)
    trainer.fit(module, make_data(text_file))
    pruned = lightning_prune.load(tmp_path / "pruned").state_dict()
    for name, weight in module.base.state_dict().items():
        assert not torch.equal(weight, pruned[name]), f"{name} was not trained"


def test_two_methods_prune_one_after_the_other(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Cut first, then mask what is left; each leaves its plan."""
    module = CausalLM(str(model_folder))
    methods = [GQATaylor(ratio=0.25), Wanda(sparsity=0.5)]
    make_trainer(tmp_path, *methods, steps=1).fit(module, make_data(text_file))
    assert Plan.load(tmp_path / "plan-1").kinds == ["group", "neuron"]
    assert Plan.load(tmp_path / "plan-2").mask_names


def test_cutting_a_masked_model_is_refused(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """The masks would not fit any more."""
    methods = [Wanda(sparsity=0.5), GQATaylor(ratio=0.25)]
    with pytest.raises(ValueError, match="cut before methods that mask"):
        make_trainer(tmp_path, *methods).fit(CausalLM(str(model_folder)), make_data(text_file))


def test_validate_does_not_prune(tmp_path: Path, model_folder: Path, text_file: Path) -> None:
    """Only fit prunes."""
    module = CausalLM(str(model_folder))
    trainer = make_trainer(tmp_path, Wanda(sparsity=0.5))
    trainer.validate(module, make_data(text_file), verbose=False)
    assert not (tmp_path / "plan").exists()
    assert float(trainer.callback_metrics["val_perplexity"]) > 1


def test_a_method_without_calibration_text_is_refused(tmp_path: Path, model_folder: Path) -> None:
    """Training loaders alone do not say what to calibrate on."""
    loader = [{"input_ids": torch.zeros(1, 4, dtype=torch.long)}]
    trainer = make_trainer(tmp_path, Wanda(sparsity=0.5))
    with pytest.raises(ValueError, match="needs calibration data"):
        trainer.fit(CausalLM(str(model_folder)), loader, loader)


def test_magnitude_needs_no_datamodule(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loaders given to `fit` train the model, and the report measures it on them."""
    batches = [{"input_ids": torch.randint(3, 300, (2, 16))} for _ in range(4)]
    loader = DataLoader(batches, batch_size=None)
    callbacks = [Magnitude(sparsity=0.5), WriteReport(speed=False), SavePretrained()]
    trainer = make_trainer(tmp_path, *callbacks, steps=2)
    trainer.fit(CausalLM(str(model_folder)), loader, loader)
    stages = json.loads((tmp_path / "report.json").read_text())["stages"]
    assert all(stage["perplexity"] > 1 for stage in stages.values())
    assert stages["pruned"]["nonzero"] < stages["dense"]["nonzero"]


def test_a_second_fit_goes_on_with_the_pruned_model(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """A Trainer or a module used again is not pruned again."""
    module, method = CausalLM(str(model_folder)), GQATaylor(ratio=0.25)
    trainer = make_trainer(tmp_path, method, steps=2)
    trainer.fit(module, make_data(text_file))
    trainer.fit_loop.epoch_loop.max_steps = 4
    trainer.fit(module, make_data(text_file))
    assert len(module.plans) == 1
    assert module.base.model.layers[0].mlp.up_proj.out_features == 17
