"""A run that is resumed on another day, with a chat template that writes the date."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
import torch

from lightning_prune import CausalLM, Evaluate, TextData, Wanda
from lightning_prune.data.kept import KEPT
from lightning_prune.models.recovery.adapters import LoRA
from tests.data import words
from tests.data.words import chat
from tests.lightning.runs import Losses, checkpoints, make_trainer
from tests.tiny import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose template writes the date, and chats."""
    tokenizer = words.tokenizer(chat=True)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + words.CHAT_TEMPLATE
    tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "chats.jsonl").write_text("\n".join(json.dumps(chat(i)) for i in range(80)))
    return tmp_path


def fit(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    day: int,
    steps: int,
    run: str = "run",
    stop: int | None = None,
    **settings: object,
) -> tuple[CausalLM, Losses]:
    monkeypatch.setattr("lightning_prune.data.rendering.today", lambda: date(2026, 11, day))
    asked = {"nsamples": 8, "length": 60, "batch_size": 4} | settings
    torch.manual_seed(0)
    data = TextData(str(folder / "chats.jsonl"), **asked)  # type: ignore[arg-type]
    module, losses = CausalLM(str(folder / "model"), adapter=LoRA(r=2)), Losses(stop)
    callbacks = [Wanda(sparsity=0.5), losses, checkpoints(folder / run)]
    trainer = make_trainer(folder / run, *callbacks, steps=steps)
    last = folder / run / "checkpoints" / "last.ckpt"
    trainer.fit(module, data, ckpt_path=str(last) if last.exists() else None)
    return module, losses


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Detected KeyboardInterrupt")
def test_a_run_is_resumed_on_another_day(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its plan, and with the batches that it would have seen."""
    whole, expected = fit(folder, monkeypatch, 27, 4, run="whole")
    first, _ = fit(folder, monkeypatch, 27, 2)
    second, losses = fit(folder, monkeypatch, 28, 4)
    assert first.plan is not None
    assert second.plan is not None
    assert whole.plan is not None
    assert second.plan.fingerprint() == first.plan.fingerprint() == whole.plan.fingerprint()
    assert losses.values[3] == expected.values[3]
    assert losses.values[4] == expected.values[4]
    assert second.plan.provenance["calibration"]["dated"] == "2026-11-27"
    assert (folder / "run" / "plan" / KEPT).is_file()


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_run_that_asks_for_other_text_is_told_from_its_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept does not paper over it."""
    fit(folder, monkeypatch, 27, 2)
    with pytest.raises(ValueError, match="the checkpoint was made with the pruning plan"):
        fit(folder, monkeypatch, 27, 3, nsamples=7, seed=5)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("asked", [None, "2026-11-30"])
def test_a_run_is_judged_with_its_date_wherever_the_judge_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    """On the day after, too; another date is asked for with the judge."""
    judged = []
    for day in (27, 28):
        monkeypatch.setattr(
            "lightning_prune.data.rendering.today", lambda day=day: date(2026, 11, day)
        )
        data = TextData(str(folder / "chats.jsonl"), nsamples=8, length=60, batch_size=4)
        evaluate = Evaluate(texts=[str(folder / "chats.jsonl")], lengths=[60], date=asked)
        trainer = make_trainer(folder / "run", evaluate, Wanda(sparsity=0.5), steps=1)
        trainer.fit(CausalLM(str(folder / "model"), adapter=LoRA(r=2)), data)
        judged += [text.tokens for text in evaluate.results["pruned"].perplexities]
    assert len(judged) == 2
    assert judged[0] == judged[1]
    of_the_run = data.dated
    assert of_the_run == "2026-11-27"
    assert evaluate.rendering.day.isoformat() == (asked or of_the_run)
