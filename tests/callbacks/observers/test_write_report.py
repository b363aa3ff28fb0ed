"""What a run's report says besides figures."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule

from lightning_prune import (
    CFSP,
    CausalLM,
    DropBlocks,
    Evaluate,
    LoRA,
    Magnitude,
    MagnitudeSP,
    SavePretrained,
    TextData,
    Wanda,
    WriteReport,
)
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.callbacks.observers.base import PruneObserver
from lightning_prune.callbacks.observers.measuring import first_windows
from lightning_prune.evaluation import Evaluation, perplexity
from lightning_prune.models.loading import Source
from lightning_prune.report.report import Report
from tests.lightning.runs import Losses, checkpoints, make_data, make_trainer

QUICK = {"speed": False, "prompt": 0}


def report_of(folder: Path) -> Report:
    return Report.from_json((folder / "report.json").read_text())


def fit(
    folder: Path, model_folder: Path, text_file: Path, *callbacks: Any, **settings: Any
) -> LightningModule:
    torch.manual_seed(0)
    module = CausalLM(str(model_folder), adapter=LoRA(r=2))
    ckpt_path = settings.pop("ckpt_path", None)
    trainer = make_trainer(folder, *callbacks, log_every_n_steps=1, **settings)
    trainer.fit(module, make_data(text_file), ckpt_path=ckpt_path)
    return module


@pytest.mark.parametrize(
    ("method", "asked", "done"),
    [
        (Magnitude(sparsity=0.5), "sparsity 0.5", "50.00% of 20,160 weights are zero"),
        (Wanda(pattern="2:4", exclude=["*.down_proj"]), "pattern 2:4", "50.00% of"),
        (MagnitudeSP(ratio=0.25), "ratio 0.25", "of 66 MLP neurons are gone"),
        (DropBlocks(indices=[1]), "indices [1]", "1 of 3 blocks are gone (33.3%)"),
    ],
    ids=["masks", "pattern", "units", "blocks"],
)
def test_what_was_asked_stands_beside_what_was_done(
    tmp_path: Path,
    model_folder: Path,
    text_file: Path,
    method: PruningCallback,
    asked: str,
    done: str,
) -> None:
    """For masks, units and blocks; the page is written in each case."""
    fit(tmp_path, model_folder, text_file, method, WriteReport(**QUICK), steps=1)
    [one] = report_of(tmp_path).asked
    assert one.method == type(method).__name__
    assert one.asked == asked
    assert done in one.done
    assert "Asked and done" in (tmp_path / "report.html").read_text()


def test_curves_go_on_where_a_checkpoint_was_written(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """After an interruption the curve is that of a run that was not interrupted."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    parts = (model_folder, text_file)
    fit(whole, *parts, Wanda(sparsity=0.5), WriteReport(**QUICK), steps=4)
    with pytest.raises(SystemExit):
        fit(
            cut, *parts, Wanda(sparsity=0.5), WriteReport(**QUICK), checkpoints(cut),
            Losses(stop_after=2), steps=4,
        )  # fmt: skip
    last = cut / "checkpoints" / "last.ckpt"
    again = (Wanda(sparsity=0.5), WriteReport(**QUICK), checkpoints(cut))
    fit(cut, *parts, *again, steps=4, ckpt_path=last)
    expected, found = (report_of(folder).curves["train_loss"] for folder in (whole, cut))
    assert [step for step, _ in found] == [1, 2, 3, 4]
    assert found == expected


def test_other_evaluations_are_part_of_the_report_and_of_saved_folders(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Of every stage, wherever the callbacks stand in the list."""
    evaluate = Evaluate(texts=[str(text_file)], lengths=[16, 32], windows=3, prompts=["The"])
    callbacks = (SavePretrained(), WriteReport(speed=False), evaluate, Wanda(sparsity=0.5))
    fit(tmp_path, model_folder, text_file, *callbacks, steps=1)
    report = report_of(tmp_path)
    assert list(report.evaluations) == list(report.stages) == ["dense", "pruned", "recovered"]
    for found in report.evaluations.values():
        assert [(one.length, one.windows) for one in found.perplexities] == [(16, 3), (32, 3)]
        assert len(found.answers) == 2  # the first window's beginning, and the prompt
        assert found.answers[1].prompt == "The"
    card = (tmp_path / "pruned" / "README.md").read_text()
    assert "perplexity (3 windows of 16 tokens)" in card
    saved = report_of(tmp_path / "pruned").evaluations
    assert saved["pruned"] == report.evaluations["pruned"]


def test_importance_and_hashes_are_reported(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Importance of blocks, numbered as when dense; what the run can be told by."""
    callbacks = (DropBlocks(indices=[0]), CFSP(ratio=0.25), WriteReport(**QUICK))
    module = fit(tmp_path, model_folder, text_file, *callbacks, steps=1)
    report = report_of(tmp_path)
    assert list(report.importance["Importance of blocks, CFSPSigmoid"]) == [1, 2]
    assert isinstance(module, CausalLM)
    assert module.plan is not None
    assert report.provenance["plan (sha256)"] == module.plan.fingerprint()
    assert report.provenance["calibration"]["nsamples"] == 8
    assert report.configuration["model"]["adapter"].startswith("LoRA(r=2")
    assert report.configuration["data"]["length"] == "32"


def test_speed_is_measured_with_a_cache(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Before and after."""
    fit(tmp_path, model_folder, text_file, Wanda(sparsity=0.5), WriteReport(prompt=0), steps=1)
    found = json.loads((tmp_path / "report.json").read_text())["evaluations"]
    for stage in ("dense", "pruned", "recovered"):
        [speed] = found[stage]["speeds"]
        assert speed["prompt"] == 32
        assert speed["decode_seconds"] > 0


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_without_validation_data_there_is_still_a_page(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """With parameters and blocks, and without perplexity."""
    data = make_data(text_file)
    trainer = make_trainer(tmp_path, Wanda(sparsity=0.5), WriteReport(), steps=1)
    data.val_dataloader = LightningDataModule.val_dataloader.__get__(data)  # as if it had none
    trainer.fit(CausalLM(str(model_folder)), datamodule=data)
    assert report_of(tmp_path).stages["pruned"].perplexity is None
    assert "Weights set to zero" in (tmp_path / "report.html").read_text()


def test_each_use_of_text_is_named(tmp_path: Path, model_folder: Path, text_file: Path) -> None:
    """Also where calibration, validation or test have a text of their own; places only in JSON."""
    texts = {use: tmp_path / f"{use}.txt" for use in ("calibration", "validation", "test")}
    for path in texts.values():
        path.write_text(text_file.read_text())
    named = {use: str(path) for use, path in texts.items()}
    data = TextData(str(text_file), length=32, nsamples=8, **named)
    trainer = make_trainer(tmp_path / "run", Wanda(sparsity=0.5), WriteReport(**QUICK), steps=1)
    trainer.fit(CausalLM(str(model_folder)), data)
    assert report_of(tmp_path / "run").configuration["texts"] == {"train": str(text_file), **named}
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(f"<dd>{path.name}</dd>" in page for path in texts.values())
    assert str(tmp_path) not in page


def test_measuring_can_be_shortened(tmp_path: Path, model_folder: Path, text_file: Path) -> None:
    """To some windows, or to none; the settings say what perplexity is of."""
    perplexities = {}
    for windows in (None, 3, 0):
        folder = tmp_path / str(windows)
        fit(folder, model_folder, text_file, Wanda(sparsity=0.5), WriteReport(False, 0, windows))
        report = report_of(folder)
        perplexities[windows] = report.stages["dense"].perplexity
        if windows is not None:
            assert report.settings["validation_windows"] == windows
    assert perplexities[0] is None
    assert len(set(perplexities.values())) == 3
    data = make_data(text_file)
    source = Source(str(model_folder))
    tokenizer = source.tokenizer()
    assert tokenizer is not None
    windows_3 = first_windows(list(data.attach(tokenizer, 64).val_dataloader()), 3)
    expected = perplexity(source.model("auto", None), windows_3)
    assert perplexities[3] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("wrong", [{"windows": -1}, {"prompt": -1}])
def test_numbers_below_zero_are_refused(wrong: dict[str, int]) -> None:
    """When it is made."""
    with pytest.raises(ValueError, match=r"WriteReport: \w+=-\d+; 0 at least"):
        WriteReport(**wrong)  # type: ignore[arg-type]


def test_the_time_of_every_part_is_reported(
    tmp_path: Path, model_folder: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order in which they began; what observers do counts for them, not for pruning."""
    judge = Evaluate(texts=[str(text_file)], lengths=[16], windows=2)
    slow = judge.of

    def of(*arguments: Any) -> Evaluation:
        time.sleep(0.5)
        return slow(*arguments)

    judge.of = of  # type: ignore[method-assign]
    observers = (WriteReport(**QUICK), SavePretrained(), judge)
    start = time.perf_counter()
    fit(tmp_path, model_folder, text_file, *observers, Wanda(sparsity=0.5), steps=2)
    whole = time.perf_counter() - start
    seconds = report_of(tmp_path).seconds
    assert list(seconds) == [
        *("loading", "judging dense", "measuring dense", "pruning", "judging pruned"),
        *("measuring pruned", "saving pruned", "training", "merging", "judging recovered"),
        *("measuring recovered", "saving recovered"),
    ]
    assert all(seconds[f"judging {stage}"] >= 0.5 for stage in ("dense", "pruned", "recovered"))
    assert sum(seconds.values()) <= whole
    assert all(value >= 0 for value in seconds.values())
    assert "time: loading " in capsys.readouterr().out


def test_the_time_of_another_run_does_not_count(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """One callback, two runs."""
    report, seconds = WriteReport(**QUICK), []
    for name in ("one", "two"):
        fit(tmp_path / name, model_folder, text_file, report, Wanda(sparsity=0.5))
        seconds.append(report_of(tmp_path / name).seconds)
    assert list(seconds[0]) == list(seconds[1])
    assert all(not observer.laps for observer in (report,))


def test_a_saved_folder_has_the_report_of_whoever_measures(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """The module carries none; an observer of one's own is asked as ours is."""

    class Mine(PruneObserver):
        def report_on(self, pl_module: LightningModule) -> Report:
            return Report("mine", "by hand", "2020-01-01")

    module = fit(tmp_path, model_folder, text_file, SavePretrained(), Mine(), Wanda(sparsity=0.5))
    assert report_of(tmp_path / "pruned").model == "mine"
    assert not hasattr(module, "report")


def test_it_can_be_sent_to_a_process_that_is_spawned() -> None:
    """As strategies do that spawn; its settings go along."""
    assert pickle.loads(pickle.dumps(WriteReport(windows=2))).windows == 2


def test_a_model_is_called_by_its_name(tmp_path: Path, model_folder: Path, text_file: Path) -> None:
    """Not by the folder it lies in; where that is stands among the settings."""
    fit(tmp_path / "one", model_folder, text_file, SavePretrained(), Wanda(sparsity=0.5))
    again = tmp_path / "one" / "pruned"
    fit(tmp_path / "two", again, text_file, WriteReport(**QUICK), Wanda(sparsity=0.6))
    report = report_of(tmp_path / "two")
    assert report.model == f"{model_folder.name} (one/pruned)"
    assert report.configuration["model"]["path"] == str(again)
