"""`lightning-prune evaluate` and `measure`: what they print, write and refuse."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import CausalLM, Evaluate, TextData, Wanda, load, save
from lightning_prune.cli import main
from lightning_prune.evaluation import Evaluation, Speed
from lightning_prune.models.loading import Source
from lightning_prune.pipeline import prune
from tests.processes import Pair
from tests.tiny import tiny_batch


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def masked(model_folder: Path, tmp_path: Path) -> Path:
    """The session's model with half of its weights set to zero, in a folder `masked`."""
    model = load(model_folder)
    plan = prune(model, Wanda(sparsity=0.5), [{"input_ids": tiny_batch()}])
    return save(model, tmp_path / "masked", plan, Source(str(model_folder)).tokenizer())


def test_two_models_are_judged_side_by_side(
    model_folder: Path, masked: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several texts and lengths in one run; in the files the same figures."""
    asked = ["--texts", str(text_file), "builtin", "--lengths", "16", "32", "--windows", "4"]
    say = ["--prompts", "The assert", "--new_tokens", "5", "--device", "cpu", "--out", "out"]
    main(["evaluate", str(model_folder), "masked", *asked, *say])
    said = capsys.readouterr().out
    found = json.loads(Path("out/evaluation.json").read_text())
    assert list(found["models"]) == [model_folder.name, "masked"]
    for value in found["models"].values():
        evaluation = Evaluation.from_dict(value)
        assert [(p.length, p.windows) for p in evaluation.perplexities] == [(16, 4), (32, 4)] * 2
        assert evaluation.answers[0].prompt == "The assert"
    assert "out/evaluation.md" in said
    assert "builtin (test)" in said
    assert found["settings"]["lengths"] == [16, 32]


def test_models_of_the_same_name_are_told_apart_by_their_runs(
    masked: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By as many parts of their paths as that takes, not by all of them."""
    for run in ("first", "second"):
        shutil.copytree(masked, f"runs/{run}/pruned")
    models = [str(Path(f"runs/{run}/pruned").resolve()) for run in ("first", "second")]
    main(["evaluate", *models, "--texts", str(text_file), "--windows", "2", "--device", "cpu"])
    said = capsys.readouterr().out
    assert "first/pruned" in said
    assert "second/pruned" in said
    assert "runs/" not in said


def test_validate_and_test_take_the_same_callback(
    run: Any, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In LightningCLI, beside what Lightning logs."""
    callback = ["--trainer.callbacks=Evaluate", f"--trainer.callbacks.texts=[{text_file}]"]
    folder = run("test", *callback, "--trainer.callbacks.lengths=[16]")
    found = json.loads((folder / "evaluation.json").read_text())
    [value] = found["models"].values()
    assert value["perplexities"][0]["length"] == 16
    assert "test_perplexity" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "name", "split"), [("test", "test", "test"), ("validate", "val", "validation")]
)
def test_what_the_perplexity_is_of_stands_below_lightnings_table(
    command: str,
    name: str,
    split: str,
    run: Any,
    model_folder: Path,
    text_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Text, split, how many windows of what length; also where only some are looked at."""
    data = TextData(str(text_file), length=8)
    tokenizer = Source(str(model_folder)).tokenizer()
    assert tokenizer is not None
    data.attach(tokenizer, 64).setup(command)
    all_of_them = len(data.windows[split])
    assert all_of_them > 4
    for limit, count in (([], all_of_them), ([f"--trainer.limit_{name}_batches=2"], 4)):
        run(command, own=["--data.length=8", "--data.batch_size=2", *limit])
        table, _, line = capsys.readouterr().out.rstrip().rpartition("\n")
        assert f"{name}_perplexity" in table
        of = f"{text_file} ({split}, 5% of it): {count} windows of 8 tokens"
        assert line == f"{name}_perplexity is of {of}"


def test_size_and_speed_are_measured_and_zeros_are_said_to_bring_none(
    model_folder: Path, masked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parameters, bytes of the files, and each batch size and length."""
    numbers = ["--batch_sizes", "1", "2", "--lengths", "8", "--new_tokens", "2", "--runs", "1"]
    main(["measure", str(model_folder), "masked", *numbers, "--device", "cpu", "--out", "out"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Zeros bring no speed and no smaller file by themselves" in said
    assert "decode, tokens/s" in said
    found = json.loads(Path("out/measurement.json").read_text())
    evaluation = Evaluation.from_dict(found["models"]["masked"])
    assert evaluation.size is not None
    assert evaluation.size.disk == (masked / "model.safetensors").stat().st_size
    assert evaluation.size.parameters == sum(p.numel() for p in load(masked).parameters())
    assert [speed.batch_size for speed in evaluation.speeds] == [1, 2]
    assert found["settings"]["threads"] == torch.get_num_threads()
    assert all(isinstance(speed, Speed) and speed.prompt == 8 for speed in evaluation.speeds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "model"], "nothing to evaluate: give texts"),
        (["evaluate", "model", "nothing", "--texts", "builtin"], "no model 'nothing'"),
        (["evaluate", "model", "--texts", "nothing.txt"], "there is no text file or folder"),
        (["evaluate", "model", "--texts", "builtin", "--lengths", "65"], "more than the 64 tokens"),
        (["evaluate", "model", "--texts", "builtin", "--limit", "0"], "limit=0; 1 at least"),
        (["measure", "model", "--lengths", "64"], "the model can take 64"),
        (["measure", "model", "--batch_sizes", "0"], "batch_size=0"),
        (["evaluate", "model", "./model", "--texts", "builtin"], "is the same model as 'model'"),
        (["evaluate", "model", "--prompts", ""], "model: the prompt '' has no token"),
        (["measure"], "the following arguments are required: models"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in all commands."""
    Path("model").symlink_to(model_folder)
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("lightning-prune: error: ")
    assert message in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "one", "two", "--texts", "builtin", "nothing.txt"],
        ["evaluate", "one", "two", "--texts", "builtin", "--lengths", "32", "65"],
        ["evaluate", "one", "two", "--texts", "builtin", "--prompts", "The", ""],
        ["evaluate", "one", "two", "--texts", "builtin", "--out", "/proc/nothing"],
        ["evaluate", "one", "without weights", "--texts", "builtin"],
        ["evaluate", "one", "without tokenizer", "--texts", "builtin"],
        ["measure", "one", "two", "--batch_sizes", "1", "0"],
        ["measure", "one", "two", "--lengths", "8", "60"],
        ["measure", "one", "two", "--out", "/proc/nothing"],
        ["measure", "one", "without weights"],
    ],
)
def test_nothing_is_loaded_before_all_has_been_looked_at(
    arguments: list[str],
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever is wrong with the last model, text, length, prompt or folder."""
    for name in ("one", "two", "without weights", "without tokenizer"):
        shutil.copytree(model_folder, name)
    Path("without weights/model.safetensors").unlink()
    for file in Path("without tokenizer").glob("*token*"):
        file.unlink()

    def load(self: CausalLM) -> None:
        raise AssertionError("loaded too early")

    monkeypatch.setattr(CausalLM, "load", load)
    with pytest.raises(SystemExit):
        main(arguments)
    assert "lightning-prune: error: " in capsys.readouterr().err


def test_figures_are_printed_also_where_they_cannot_be_written(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk may be full by then."""

    def write(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("lightning_prune.report.files.write", write)
    few = ["--texts", "builtin", "--lengths", "16", "--windows", "1"]
    fast = ["--batch_sizes", "1", "--lengths", "8", "--new_tokens", "1", "--runs", "1"]
    for command, arguments in (("evaluate", few), ("measure", fast)):
        with pytest.raises(SystemExit):
            main([command, str(model_folder), *arguments, "--device", "cpu", "--out", "out"])
        said = capsys.readouterr()
        assert "no space left" in said.err
        assert model_folder.name in said.out


def test_the_folder_one_stands_in_has_its_own_name(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the head of the table."""
    monkeypatch.chdir(model_folder)
    main(["evaluate", ".", "--texts", "builtin", "--lengths", "16", "--windows", "1"])
    assert model_folder.name in capsys.readouterr().out


def test_tasks_without_lm_eval_are_one_line(
    model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install; bare `--tasks` are the seven of papers."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(SystemExit):
        main(["evaluate", str(model_folder), "--tasks"])
    said = capsys.readouterr().err
    assert "boolq, rte, hellaswag, winogrande, arc_easy, arc_challenge, openbookqa need" in said
    assert "pip install 'lightning-prune[evaluation]'" in said


@pytest.mark.slow
def test_two_processes_find_what_one_finds(
    model_folder: Path, text_file: Path, tmp_path: Path, pair: Pair
) -> None:
    """Together what Lightning measures, and the first process alone of the whole model."""
    command = ["test", f"--model.path={model_folder}"]
    command += [f"--data.source={text_file}", "--data.length=32", "--data.batch_size=2"]
    command += ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=fsdp2"]
    command += ["--trainer.callbacks=Evaluate", f"--trainer.callbacks.texts=[{text_file}]"]
    command += [
        "--trainer.callbacks.lengths=[32]",
        f"--trainer.default_root_dir={tmp_path / 'run'}",
    ]
    pair.run(main, command)
    [model] = json.loads((tmp_path / "run/evaluation.json").read_text())["models"].values()
    [logged] = (tmp_path / "run").rglob("metrics.csv")
    row = dict(zip(*(line.split(",") for line in logged.read_text().split()), strict=True))
    source = Source(str(model_folder))
    evaluate, tokenizer = Evaluate(texts=[str(text_file)], lengths=[32]), source.tokenizer()
    texts = evaluate.cut(tokenizer, 64, evaluate.read(apart=[str(text_file)]))
    [alone] = evaluate.of(source.model("auto", None), tokenizer, texts=texts).perplexities
    assert model["perplexities"][0]["perplexity"] == pytest.approx(alone.perplexity, rel=1e-6)
    assert float(row["test_perplexity"]) == pytest.approx(alone.perplexity, rel=1e-5)
