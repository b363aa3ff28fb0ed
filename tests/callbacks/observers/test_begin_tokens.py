"""A model whose tokenizer begins every text with a token is judged as it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import CausalLM, Evaluate, Magnitude, TextData, Wanda, WriteReport
from lightning_prune.evaluation import Evaluation, TextPerplexity, perplexity
from lightning_prune.report.evaluation import perplexity_table
from tests.data import words
from tests.lightning.runs import make_data, make_trainer
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def begins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose tokenizer puts <bos> in front of every text."""
    folder = tmp_path_factory.mktemp("begins")
    tokenizer = words.begin_tokenizer()
    tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def by_hand(module: CausalLM, text: str, length: int, begin_token: bool | None) -> float:
    tokenizer = module.tokenizer
    assert tokenizer is not None
    if begin_token is False:
        ids = tokenizer(text)["input_ids"]
        rows = [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]
    else:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        room = length - 1
        parts = [ids[i : i + room] for i in range(0, len(ids) - room + 1, room)]
        rows = [[tokenizer.bos_token_id, *part] for part in parts]
    return perplexity(module.base, [{"input_ids": torch.tensor(rows)}])


@pytest.mark.parametrize("begin_token", [None, True, False])
def test_texts_are_judged_in_windows_that_begin_so(
    begins: Path, text_file: Path, begin_token: bool | None
) -> None:
    """And the figure says how they begin."""
    module = CausalLM(str(begins))
    module.load()
    evaluate = Evaluate(texts=[str(text_file)], lengths=[16], begin_token=begin_token)
    [one] = evaluate.of(module.base, module.tokenizer).perplexities
    expected = by_hand(module, text_file.read_text(), 16, begin_token)
    assert one.perplexity == pytest.approx(expected, rel=1e-5)
    assert one.begin == ("" if begin_token is False else "<bos>")


@pytest.mark.parametrize("begin_token", [None, False])
def test_a_run_judges_as_it_trains_and_says_how(
    tmp_path: Path, begins: Path, text_file: Path, begin_token: bool | None
) -> None:
    """`Evaluate` follows the run's text, unless it is asked otherwise; so does the report."""
    follows = Evaluate(texts=["builtin"], lengths=[16], windows=3)
    asked = Evaluate(texts=["builtin"], lengths=[16], windows=3, begin_token=True)
    method = Magnitude(sparsity=0.1)
    writer = WriteReport(speed=False)
    trainer = make_trainer(tmp_path, writer, method, follows, asked, steps=1)
    module = CausalLM(str(begins))
    trainer.fit(module, make_data(text_file, begin_token=begin_token))
    begin = "<bos>" if begin_token is None else ""
    assert [one.begin for one in follows.results["dense"].perplexities] == [begin]
    assert [one.begin for one in asked.results["dense"].perplexities] == ["<bos>"]
    report = writer.report_on(module)
    assert report is not None
    assert report.settings["begin"] == begin
    page = (tmp_path / "report.html").read_text()
    assert ("32 tokens, each begun with &lt;bos&gt;" in page) == (begin_token is None)


def test_what_windows_begin_with_stands_below_the_table() -> None:
    """Once if all models have it, else by the model."""

    def table(**begins: str) -> Any:
        found = {
            name: Evaluation([TextPerplexity("a", "test", 16, 3, 9.0, begin=begin)])
            for name, begin in begins.items()
        }
        return perplexity_table(found)

    assert table(a="<bos>", b="<bos>").note == (
        "Length: tokens in a window, each begun with <bos>; lower is better."
    )
    assert table(a="", b="").note == "Length: tokens in a window; lower is better."
    assert "each begun with <bos> (b); lower" in table(a="", b="<bos>").note


def test_the_run_s_plan_says_how_calibration_began(
    tmp_path: Path, begins: Path, text_file: Path
) -> None:
    """What its text was, with the setting."""
    data: TextData = make_data(text_file, begin_token=False)
    module = CausalLM(str(begins))
    make_trainer(tmp_path, Wanda(sparsity=0.5), steps=1).fit(module, data)
    assert module.plan is not None
    assert module.plan.provenance["calibration"]["begin_token"] is False
