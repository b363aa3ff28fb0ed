"""What a run leaves behind and goes on with: several methods, several modules, several starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader

import lightning_prune
from lightning_prune import (
    CausalLM,
    GQATaylor,
    LoRA,
    Magnitude,
    Plan,
    SavePretrained,
    Wanda,
    pipeline,
)
from lightning_prune.callbacks import WriteReport
from lightning_prune.callbacks.observers import base
from lightning_prune.models import merged_model
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
    with pytest.raises(ValueError, match="was made with the pruning plan .*this run has") as caught:
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
    fit(WriteReport(speed=False), SavePretrained(), losses, ckpt_path=last)
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
    monkeypatch.setattr(pipeline, "prune", lambda *given: calls.append(1) or prune(*given))
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
    monkeypatch.setattr(pipeline, "prune", lambda *_: pytest.fail("calibrated"))
    method, save, report = Wanda(sparsity=0.5), SavePretrained(), WriteReport()
    monkeypatch.setattr(report, "_measure", lambda *_: pytest.fail("measured"))
    for callbacks in ([save, report, method], [method, report, save]):
        with pytest.raises(ValueError, match="recovered is not a plain model folder"):
            make_trainer(tmp_path, *callbacks).fit(
                CausalLM(str(model_folder)), make_data(text_file)
            )


# --- data of one's own ---


class OwnData(LightningDataModule):
    """Nothing but calibration and training batches, shuffled."""

    def __init__(self, calibration_seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(calibration_seed)
        self.calibration = torch.randint(3, 300, (8, 16), generator=generator)

    def calibration_dataloader(self) -> DataLoader[Any]:
        batches = [{"input_ids": ids_T} for ids_T in self.calibration]
        return DataLoader(batches, batch_size=4, shuffle=True)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([{"input_ids": ids_T} for ids_T in self.calibration], batch_size=4)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_a_datamodule_needs_only_calibration_batches(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs are told apart by their tokens, and reports leave out what cannot be measured."""

    def identity(data: OwnData) -> dict[str, Any]:
        torch.manual_seed(0)
        callbacks = [Wanda(sparsity=0.5), WriteReport(), SavePretrained()]
        trainer = make_trainer(tmp_path, *callbacks, steps=1)
        trainer.fit(CausalLM(str(model_folder)), data)
        return Plan.load(tmp_path / "plan").provenance["identity"]

    first = identity(OwnData())
    stages = json.loads((tmp_path / "report.json").read_text())["stages"]
    assert [stage["perplexity"] for stage in stages.values()] == [None, None, None]
    assert identity(OwnData()) == first
    assert identity(OwnData(calibration_seed=1)) != first


@pytest.mark.parametrize(("limit", "windows"), [(2, 4), (0.5, 4), (1.0, 10), (0, 10)])
def test_the_report_measures_as_much_as_is_validated(
    tmp_path: Path, model_folder: Path, limit: float, windows: int
) -> None:
    """A number of batches, or a share of them; all where nothing is validated on the way."""
    loader = DataLoader([{"input_ids": torch.full((16,), 3 + i)} for i in range(10)], batch_size=2)
    callbacks = [Magnitude(sparsity=0.5), WriteReport(speed=False, prompt=0)]
    trainer = make_trainer(tmp_path, *callbacks, steps=1, limit_val_batches=limit)
    trainer.fit(CausalLM(str(model_folder)), loader, loader)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["settings"]["validation_windows"] == windows


# --- what is left behind ---


def test_the_report_lists_what_its_own_run_has_written(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Both plans and the checkpoints, and no model that an earlier run left in the folder."""
    (tmp_path / "model").mkdir()
    (tmp_path / "recovered").mkdir()
    methods = [GQATaylor(ratio=0.25), Wanda(sparsity=0.5)]
    callbacks = [WriteReport(speed=False), *methods, checkpoints(tmp_path)]
    trainer = make_trainer(tmp_path, *callbacks, steps=1)
    trainer.fit(CausalLM(str(model_folder)), make_data(text_file))
    files = json.loads((tmp_path / "report.json").read_text())["files"]
    pages = {"structure.svg", "report.json", "report.html"}
    assert set(files) == {"plan-1", "plan-2", "checkpoints"} | pages
    assert all(Path(path).exists() for path in files.values())


def test_saved_folders_carry_the_report_and_say_what_was_measured(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Whatever the order of the callbacks, and without the run's own paths."""
    callbacks = [SavePretrained(), Wanda(sparsity=0.5), WriteReport(speed=False)]
    module = CausalLM(str(model_folder), adapter=LoRA(r=2))
    make_trainer(tmp_path, *callbacks, steps=1).fit(module, make_data(text_file))
    run = Report.from_json((tmp_path / "report.json").read_text())
    expected = {"pruned": ["dense", "pruned"], "recovered": ["dense", "pruned", "recovered"]}
    for name, stages in expected.items():
        report = Report.from_json((tmp_path / name / "report.json").read_text())
        assert report.stages == {stage: run.stages[stage] for stage in stages}
        assert report.files == {}
        card = (tmp_path / name / "README.md").read_text()
        assert "Method: `Wanda(sparsity=0.5" in card
        perplexity = run.stages[name].perplexity
        assert f"| {name} | {perplexity:.4g} |" in card
        assert str(tmp_path) not in card


def test_the_trained_model_is_merged_once_for_all_callbacks(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gathering and merging a large model is not done twice."""
    calls: list[CausalLM] = []
    merged = base.merged_model
    monkeypatch.setattr(base, "merged_model", lambda module: calls.append(module) or merged(module))
    callbacks = [WriteReport(speed=False), Wanda(sparsity=0.5), SavePretrained()]
    module = CausalLM(str(model_folder), adapter=LoRA(r=2))
    make_trainer(tmp_path, *callbacks, steps=1).fit(module, make_data(text_file))
    assert calls == [module]


def test_the_shipped_model_s_plan_names_it_without_its_place_on_the_disk(
    tmp_path: Path, text_file: Path
) -> None:
    """A path into somebody's installation means nothing to others."""
    module = CausalLM("quickstart")
    module.load()
    plan = pipeline.prune(module.base, Magnitude(sparsity=0.5))
    assert plan.provenance["model"] == "quickstart"


def test_an_adapted_module_is_told_to_merge_before_it_is_pruned(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """The message names the class in full: peft calls its Linear just that."""
    module = CausalLM(str(model_folder), adapter=LoRA(r=2))
    make_trainer(tmp_path, steps=1).fit(module, make_data(text_file))
    with pytest.raises(ValueError, match=r"q_proj is a peft\..*Linear, not a .*merge its adapter"):
        make_trainer(tmp_path, Wanda(sparsity=0.5)).fit(module, make_data(text_file))
    module.merge_adapter()
    make_trainer(tmp_path, Wanda(sparsity=0.5), steps=1).fit(module, make_data(text_file))
    merged = merged_model(module)
    assert merged is not None
    assert zeros_hold(merged, module.plans[0])
