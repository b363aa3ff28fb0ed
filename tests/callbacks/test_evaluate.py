"""Evaluate: by hand, in `test` and `validate`, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_prune import CausalLM, Evaluate, TextData
from lightning_prune.evaluation import perplexity
from lightning_prune.models.loading import Source
from tests.lightning.runs import make_data, make_trainer


def test_each_text_is_measured_at_each_length(model_folder: Path, text_file: Path) -> None:
    """As perplexity over the windows of the split."""
    source = Source(str(model_folder))
    model, tokenizer = source.model("auto", None), source.tokenizer()
    assert tokenizer is not None
    texts = [str(text_file), "builtin"]
    evaluate = Evaluate(texts=texts, lengths=[16, 32], split="validation", batch_size=3, windows=7)
    found = evaluate.of(model, tokenizer).perplexities
    assert [(one.text, one.window) for one in found] == [(t, n) for t in texts for n in (16, 32)]
    data = TextData(texts[0], seqlen=16, batch_size=1).attach(tokenizer, 64)
    windows = list(data.val_dataloader())[:7]
    assert found[0].perplexity == pytest.approx(perplexity(model, windows), rel=1e-5)
    assert (found[0].windows, found[0].split) == (7, "validation")


def test_the_longest_window_is_the_default(model_folder: Path, text_file: Path) -> None:
    """What the model can take."""
    source = Source(str(model_folder))
    evaluate = Evaluate(texts=[str(text_file)], windows=1)
    [one] = evaluate.of(source.model("auto", None), source.tokenizer()).perplexities
    assert one.window == 64


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
    assert "unique" in capsys.readouterr().out
    assert (tmp_path / "evaluation.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to evaluate"),
        ({"texts": "wikitext2"}, "lists of names, not one name"),
        ({"texts": ["builtin"], "windows": 0}, "windows=0; 1 at least"),
        ({"tasks": ["boolq"], "limit": -1}, "limit=-1; 1 at least"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    """When it is made, before any model is loaded."""
    with pytest.raises(ValueError, match=message):
        Evaluate(**arguments)


def test_a_model_without_tokenizer_is_refused(model_folder: Path) -> None:
    """With what to do."""
    model = Source(str(model_folder)).model("auto", None)
    with pytest.raises(ValueError, match=r"put its tokenizer\.json beside"):
        Evaluate(prompts=["The"]).of(model, None)
