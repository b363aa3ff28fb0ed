"""What a run goes on with: several methods, several modules, zeros, several starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

import lightning_prune
from lightning_prune import (
    CausalLM,
    GQATaylor,
    LoRA,
    Magnitude,
    Plan,
    SavePretrained,
    Wanda,
    WriteReport,
    pipeline,
)
from lightning_prune.report.report import Report
from tests.lightning.runs import Losses, checkpoints, make_data, make_trainer


def zeros_hold(model: torch.nn.Module, *plans: Plan) -> bool:
    """Whether every weight that some plan masks is zero, and plans mask anything."""
    weights = dict(model.named_parameters())
    masks = [(name, plan.mask(name)) for plan in plans for name in plan.mask_names]
    return bool(masks) and all((weights[name][~keep_OI] == 0).all() for name, keep_OI in masks)


# --- several methods ---


def test_the_masks_of_every_method_hold_in_the_recovered_model(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Merging the adapter revives no zero, and the folder carries both plans as one."""
    methods = [Magnitude(sparsity=0.5, layer_end=1), Wanda(sparsity=0.5, layer_start=1)]
    module = CausalLM(str(model_folder), adapter=LoRA(r=2), learning_rate=1e-2)
    make_trainer(tmp_path, *methods, SavePretrained()).fit(module, make_data(text_file))
    first, second = (Plan.load(tmp_path / name) for name in ("plan-1", "plan-2"))
    for name in ("pruned", "recovered"):
        assert zeros_hold(lightning_prune.load(tmp_path / name), first, second)
        whole = Plan.load(tmp_path / name)
        assert set(whole.mask_names) == {*first.mask_names, *second.mask_names}
        assert [step["method"] for step in whole.steps] == ["Magnitude", "Wanda"]


def test_the_recovered_folder_carries_cuts_and_masks(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Cut, then masked: all decisions are in the one plan."""
    methods = [GQATaylor(ratio=0.25), Wanda(sparsity=0.5)]
    module = CausalLM(str(model_folder), adapter=LoRA(r=2), learning_rate=1e-2)
    trainer = make_trainer(tmp_path, *methods, SavePretrained(), steps=2)
    trainer.fit(module, make_data(text_file))
    plan = Plan.load(tmp_path / "recovered")
    assert sorted(plan.kinds) == ["group", "neuron"]
    assert zeros_hold(lightning_prune.load(tmp_path / "recovered"), plan)


# --- several modules ---


def test_a_method_prunes_every_module_it_is_given(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """One method object, two modules: both are pruned, each once, and reported on their own."""
    method, report = GQATaylor(ratio=0.25), WriteReport(speed=False, prompt=0)
    first, second = CausalLM(str(model_folder)), CausalLM(str(model_folder))
    for module, name in ((first, "a"), (second, "b"), (first, "c")):
        trainer = make_trainer(tmp_path / name, method, report, steps=1)
        trainer.fit(module, make_data(text_file))
        assert len(module.plans) == 1
        assert module.base.model.layers[0].mlp.up_proj.out_features == 17
        written = report.report_on(module)
        assert written is not None
        assert written.blocks[0].dense_width == 22
        saved = Report.from_json((tmp_path / name / "report.json").read_text())
        assert saved.stages == written.stages


# --- zeros in training ---


class ZerosAtEveryStep(Callback):
    """Notes after every step whether the plan's zeros are the only zeros of the masked weights."""

    def __init__(self) -> None:
        self.held: list[bool] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        weights, plan = dict(pl_module.base.named_parameters()), pl_module.plan
        self.held += [torch.equal(weights[n] != 0, plan.mask(n)) for n in plan.mask_names]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"precision": "bf16-mixed", "gradient_clip_val": 0.1},
        {"accumulate_grad_batches": 2},
        {"precision": "bf16-true"},
    ],
    ids=lambda settings: ", ".join(map(str, settings.values())) or "plain",
)
def test_training_all_weights_keeps_the_zeros_at_every_step(
    tmp_path: Path, model_folder: Path, text_file: Path, settings: dict[str, Any]
) -> None:
    """Momentum and weight decay move the weights that stay, and only those."""
    module = CausalLM(str(model_folder), learning_rate=1e-2, weight_decay=0.1)
    module.load()
    name = "model.layers.1.mlp.up_proj.weight"
    before, watch = module.base.get_parameter(name).detach().clone(), ZerosAtEveryStep()
    trainer = make_trainer(tmp_path, Wanda(sparsity=0.5), watch, **settings)
    trainer.fit(module, make_data(text_file))
    assert len(watch.held) == 6 * 21 * trainer.accumulate_grad_batches
    assert all(watch.held)
    keep_OI, after = module.plans[0].mask(name), module.base.get_parameter(name)
    assert (after != before)[keep_OI].all()


def test_a_checkpoint_of_dense_recovery_is_as_sparse_as_the_saved_model(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Validated, checkpointed and saved models are the same one."""
    module = CausalLM(str(model_folder), learning_rate=1e-2)
    callbacks = [Wanda(sparsity=0.5), SavePretrained(), checkpoints(tmp_path)]
    make_trainer(tmp_path, *callbacks, steps=2).fit(module, make_data(text_file))
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, weight in lightning_prune.load(tmp_path / "recovered").state_dict().items():
        torch.testing.assert_close(saved[f"model.{name}"], weight, rtol=0, atol=0)


# --- several starts ---


@pytest.mark.parametrize("methods", [[Wanda(sparsity=0.25)], []], ids=["another", "none"])
def test_a_checkpoint_of_another_plan_is_refused(
    tmp_path: Path, model_folder: Path, text_file: Path, methods: list[Callback]
) -> None:
    """Its weights would fill, or empty, what this run's plan decides."""

    def fit(*callbacks: Callback, **settings: Any) -> None:
        trainer = make_trainer(tmp_path, *callbacks, checkpoints(tmp_path), steps=1)
        trainer.fit(CausalLM(str(model_folder)), make_data(text_file), **settings)

    fit(Wanda(sparsity=0.5))
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(
        ValueError, match="was made with the pruning plan .*(this run has|in place of)"
    ) as caught:
        fit(*methods, ckpt_path=last)
    assert len(str(caught.value).splitlines()) == 1


def test_a_masked_checkpoint_can_be_validated(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Validation prunes nothing, and needs no plan."""
    module = CausalLM(str(model_folder))
    trainer = make_trainer(tmp_path, Wanda(sparsity=0.5), checkpoints(tmp_path), steps=1)
    trainer.fit(module, make_data(text_file))
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    again = CausalLM(str(model_folder))
    trainer = make_trainer(tmp_path, checkpoints(tmp_path))
    trainer.validate(again, make_data(text_file), ckpt_path=last, verbose=False)
    assert zeros_hold(again.base, module.plans[0])


def test_a_damaged_plan_is_named_and_decided_on_anew(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Not without a word; the new plan is saved in its place."""
    method = Wanda(sparsity=0.5)
    make_trainer(tmp_path, method, steps=1).fit(CausalLM(str(model_folder)), make_data(text_file))
    (tmp_path / "plan" / "plan.safetensors").write_bytes(b"half")
    trainer = make_trainer(tmp_path, method, steps=1)
    with pytest.warns(UserWarning, match="decides anew: .*Prune again"):
        trainer.fit(CausalLM(str(model_folder)), make_data(text_file))
    assert Plan.load(tmp_path / "plan").mask_names


def test_a_finished_run_that_is_started_again_writes_what_is_missing(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Nothing is left to train; the recovered model is saved and reported all the same."""

    def fit(*callbacks: Callback, **settings: Any) -> None:
        module = CausalLM(str(model_folder), adapter=LoRA(r=2), learning_rate=1e-2)
        trainer = make_trainer(tmp_path, Wanda(sparsity=0.5), *callbacks, checkpoints(tmp_path))
        trainer.fit(module, make_data(text_file), **settings)

    losses = Losses()
    fit()
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    fit(WriteReport(speed=False, prompt=0), SavePretrained(), losses, ckpt_path=last)
    assert losses.values == {}
    stages = json.loads((tmp_path / "report.json").read_text())["stages"]
    assert list(stages) == ["dense", "pruned", "recovered"]
    assert stages["recovered"]["perplexity"] != stages["pruned"]["perplexity"]
    assert zeros_hold(
        lightning_prune.load(tmp_path / "recovered"), Plan.load(tmp_path / "recovered")
    )


def test_a_plan_that_is_given_from_the_run_s_own_folder_stays_what_it_is(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """The run that made it can still be started again without calibrating."""
    data = make_data(text_file)
    method = Wanda(sparsity=0.5)
    make_trainer(tmp_path, method, steps=1).fit(CausalLM(str(model_folder)), data)
    before = (tmp_path / "plan" / "plan.json").read_bytes()
    given = Wanda(plan=tmp_path / "plan")
    make_trainer(tmp_path, given, steps=1).fit(CausalLM(str(model_folder)), data)
    assert (tmp_path / "plan" / "plan.json").read_bytes() == before


@pytest.mark.parametrize(("setting", "calibrates"), [("offload", False), ("keep_scores", True)])
def test_settings_that_change_no_decision_do_not_calibrate_again(
    tmp_path: Path,
    model_folder: Path,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    calibrates: bool,
) -> None:
    """Except to make the scores that are asked for and were not kept."""
    calls: list[int] = []
    prune = pipeline.prune

    def counted(*given: Any, **more: Any) -> Plan:
        calls.append(1)
        return prune(*given, **more)

    monkeypatch.setattr(pipeline, "prune", counted)
    for settings in ({}, {setting: True}):
        trainer = make_trainer(tmp_path, Wanda(sparsity=0.5, **settings), steps=1)
        trainer.fit(CausalLM(str(model_folder)), make_data(text_file))
    assert len(calls) == 1 + calibrates


def test_a_folder_that_must_not_be_replaced_is_refused_before_calibration(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after hours of it; wherever the callback stands."""
    (tmp_path / "recovered").mkdir()
    (tmp_path / "recovered" / "notes.txt").write_text("mine")
    monkeypatch.setattr(pipeline, "prune", lambda *_, **__: pytest.fail("calibrated"))
    method, save, report = Wanda(sparsity=0.5), SavePretrained(), WriteReport()
    monkeypatch.setattr(report, "_measure", lambda *_: pytest.fail("measured"))
    for callbacks in ([save, report, method], [method, report, save]):
        with pytest.raises(ValueError, match="recovered is not a plain model folder"):
            make_trainer(tmp_path, *callbacks).fit(
                CausalLM(str(model_folder)), make_data(text_file)
            )
