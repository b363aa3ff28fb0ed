"""Data of one's own, and what a run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

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
from lightning_prune.callbacks.observers import base
from lightning_prune.models import merged_model
from lightning_prune.report.report import Report
from tests.lightning.runs import checkpoints, make_data, make_trainer
from tests.lightning.test_lifecycle import zeros_hold

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
        callbacks = [Wanda(sparsity=0.5), WriteReport(speed=False), SavePretrained()]
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
    callbacks = [WriteReport(speed=False, prompt=0), *methods, checkpoints(tmp_path)]
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
    callbacks = [SavePretrained(), Wanda(sparsity=0.5), WriteReport(speed=False, prompt=0)]
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
    callbacks = [WriteReport(speed=False, prompt=0), Wanda(sparsity=0.5), SavePretrained()]
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
