"""Evaluate: by hand, in `test` and `validate`, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import CausalLM, Evaluate, Magnitude, TextData, WriteReport
from lightning_prune.data.tokenizer import train_tokenizer
from lightning_prune.evaluation import perplexity
from lightning_prune.models.loading import Source
from tests.lightning.runs import make_data, make_trainer


def test_each_text_is_measured_at_each_length(model_folder: Path, text_file: Path) -> None:
    """As perplexity over the windows of the text."""
    source = Source(str(model_folder))
    model, tokenizer = source.model("auto", None), source.tokenizer()
    assert tokenizer is not None
    texts = ["builtin", str(text_file)]
    evaluate = Evaluate(texts=texts, lengths=[16, 32], split="validation", batch_size=3, windows=7)
    found = evaluate.of(model, tokenizer).perplexities
    assert [(one.text, one.length) for one in found] == [(t, n) for t in texts for n in (16, 32)]
    data = TextData("builtin", length=16, batch_size=1).attach(tokenizer, 64)
    windows = list(data.val_dataloader())[:7]
    assert found[0].perplexity == pytest.approx(perplexity(model, windows), rel=1e-5)
    assert (found[0].windows, found[0].split) == (7, "validation")


def test_a_file_is_judged_whole(model_folder: Path, text_file: Path) -> None:
    """Nothing is trained on there; and the figure says so."""
    source = Source(str(model_folder))
    model, tokenizer = source.model("auto", None), source.tokenizer()
    [one] = Evaluate(texts=[str(text_file)], lengths=[32]).of(model, tokenizer).perplexities
    tokens = tokenizer(text_file.read_text(), verbose=False).input_ids
    ids_NT = torch.tensor(tokens[: len(tokens) // 32 * 32]).view(-1, 32)
    assert (one.split, one.windows) == ("whole", len(ids_NT))
    expected = perplexity(model, [{"input_ids": ids_NT}])
    assert one.perplexity == pytest.approx(expected, rel=1e-5)


def test_the_tokens_that_were_judged_can_be_told_from_others(
    model_folder: Path, text_file: Path
) -> None:
    """By a hash: the same of the same windows, another of others, and of another tokenizer."""
    tokenizer = Source(str(model_folder)).tokenizer()
    found = []
    for windows, other in ((3, False), (3, False), (4, False), (3, True)):
        evaluate = Evaluate(texts=[str(text_file)], lengths=[16], windows=windows)
        theirs = train_tokenizer([text_file.read_text()[:400]], 257) if other else tokenizer
        [text] = evaluate.cut(theirs, 64, evaluate.read())
        found.append(text.fingerprint)
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_text_that_a_trainer_learns_from_keeps_its_test_share_apart(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Another file is taken whole in the same run; each figure says what it is of."""
    other = tmp_path / "other.txt"
    other.write_text(text_file.read_text())
    evaluate = Evaluate(texts=[str(text_file), str(other)], lengths=[16])
    trainer = make_trainer(tmp_path / "run", evaluate, Magnitude(sparsity=0.1), steps=1)
    data = make_data(text_file)
    trainer.fit(CausalLM(str(model_folder)), data)
    for stage in ("dense", "pruned", "recovered"):
        mine, theirs = evaluate.results[stage].perplexities
        assert (mine.split, theirs.split) == ("test, 5% of it", "whole")
        assert mine.windows < theirs.windows / 15


@pytest.mark.parametrize("wrong", [{"lengths": [9999]}, {"texts": ["nothing.txt"]}])
def test_texts_are_looked_at_before_anything_is_measured(
    tmp_path: Path, model_folder: Path, text_file: Path, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the windows of `test`, and in `fit` before the dense model is, whoever comes first."""

    def measured(*_: Any) -> None:
        raise AssertionError("measured before it was checked")

    monkeypatch.setattr(CausalLM, "test_step", measured)
    monkeypatch.setattr("lightning_prune.callbacks.observers.measuring.perplexity", measured)
    callbacks = [
        Magnitude(sparsity=0.1),
        WriteReport(),
        Evaluate(**{"texts": ["builtin"], **wrong}),
    ]
    for command in ("test", "fit"):
        trainer = make_trainer(tmp_path, *callbacks)
        with pytest.raises((ValueError, FileNotFoundError), match="lengths=9999|no text file"):
            getattr(trainer, command)(CausalLM(str(model_folder)), make_data(text_file))


def test_the_longest_window_is_the_default(model_folder: Path, text_file: Path) -> None:
    """What the model can take."""
    source = Source(str(model_folder))
    evaluate = Evaluate(texts=[str(text_file)], windows=1)
    [one] = evaluate.of(source.model("auto", None), source.tokenizer()).perplexities
    assert one.length == 64


@pytest.mark.parametrize("command", ["test", "validate"])
def test_a_model_is_judged_when_it_is_tested(
    tmp_path: Path,
    model_folder: Path,
    text_file: Path,
    command: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A table, and files in the run's folder; beside what Lightning measures."""
    evaluate = Evaluate(texts=[str(text_file)], lengths=[32], prompts=["The"])
    trainer = make_trainer(tmp_path, evaluate)
    module = CausalLM(str(model_folder))
    [logged] = getattr(trainer, command)(module, make_data(text_file), verbose=False)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    [judged] = found["models"].values()
    assert found["settings"]["lengths"] == [32]
    if command == "test":
        assert judged["perplexities"][0]["perplexity"] == pytest.approx(
            logged["test_perplexity"], rel=1e-5
        )
        assert judged["perplexities"][0]["split"] == "test, 5% of it"
    assert "unique" in capsys.readouterr().out
    assert (tmp_path / "evaluation.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to evaluate"),
        ({"texts": "wikitext2"}, "it is a list of texts: write"),
        ({"texts": ["builtin"], "windows": 0}, "windows=0; 1 at least"),
        ({"tasks": ["boolq"], "limit": -1}, "limit=-1; 1 at least"),
        ({"tasks": ["boolq"], "few_shot": -3}, "few_shot=-3; 0 at least"),
        ({"texts": ["builtin"], "split": "train"}, "split='train' is not allowed"),
        ({"texts": ["builtin"], "lengths": 64}, "lengths=64 is not allowed"),
        ({"texts": ["builtin"], "lengths": []}, r"lengths=\[\] is not allowed"),
        ({"texts": ["builtin"], "lengths": [64.5]}, r"lengths=\[64.5\] is not allowed"),
        ({"texts": ["builtin"], "lengths": [1]}, r"lengths=\[1\] is not allowed"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    """When it is made, before any model is loaded."""
    with pytest.raises(ValueError, match=message):
        Evaluate(**arguments)


@pytest.mark.parametrize(
    ("prompt", "message"), [("", "has no token"), ("assert " * 40, "the model can take 64")]
)
def test_a_prompt_is_looked_at_before_a_text_is_judged(
    model_folder: Path, prompt: str, message: str
) -> None:
    """One that is empty, or that leaves no room for what is generated."""
    evaluate = Evaluate(texts=["builtin"], prompts=[prompt])
    with pytest.raises(ValueError, match=message):
        evaluate.cut(Source(str(model_folder)).tokenizer(), 64, evaluate.read())


def test_a_model_without_tokenizer_is_refused(model_folder: Path) -> None:
    """With what to do."""
    model = Source(str(model_folder)).model("auto", None)
    with pytest.raises(ValueError, match=r"put its tokenizer\.json beside"):
        Evaluate(prompts=["The"]).of(model, None)
