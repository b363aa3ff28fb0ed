"""Chats as windows: padded and masked, and no prompt in two splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from lightning_prune.data import TextData
from tests.data.modules import in_trainer, module_of
from tests.data.words import chat, write_rows


@pytest.mark.parametrize("train_on_prompt", [False, True])
def test_chats_are_padded_and_masked(
    tmp_path: Path, chat_tokenizer: PreTrainedTokenizerFast, train_on_prompt: bool
) -> None:
    """Each chat is a row; the model is asked neither for the padding nor for prompts."""
    write_rows(tmp_path / "chats.jsonl", [chat(i, words=1 + i % 5) for i in range(40)])
    data = TextData(
        str(tmp_path / "chats.jsonl"), nsamples=8, batch_size=8, train_on_prompt=train_on_prompt
    )
    data.attach(chat_tokenizer, 40)
    for batch in (*data.calibration_dataloader(), *data.train_dataloader()):
        mask = batch["attention_mask"].bool()
        asked = batch["labels"] != -100
        assert not mask.all()
        assert batch["input_ids"].shape[1] <= 40
        assert asked.any(dim=1).all()
        assert batch["labels"][asked].equal(batch["input_ids"][asked])
        assert not (asked & ~mask).any()
        assert asked[mask].all() == train_on_prompt


def test_what_is_asked_of_chats_is_part_of_the_calibration(
    tmp_path: Path, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The gradients of answers alone are others than those of whole chats."""
    write_rows(tmp_path / "chats.jsonl", [chat(i) for i in range(40)])
    prints = {
        TextData(str(tmp_path / "chats.jsonl"), nsamples=8, train_on_prompt=prompts)
        .attach(chat_tokenizer, 40)
        .calibration_fingerprint()
        for prompts in (False, True)
    }
    assert len(prints) == 2


def test_no_prompt_that_is_measured_is_trained_on_or_calibrated_with(
    tmp_path: Path, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Also where the splits of a folder overlap, or another source is to measure by."""
    write_rows(tmp_path / "train.jsonl", [chat(i) for i in range(30)])
    write_rows(tmp_path / "validation.jsonl", [chat(i, words=2) for i in range(5)])
    write_rows(tmp_path / "other.jsonl", [chat(i) for i in range(8, 28)])
    data = TextData(str(tmp_path), test=str(tmp_path / "other.jsonl"), nsamples=24)
    data.attach(chat_tokenizer, 40).setup("test")
    seen = {
        chat_tokenizer.decode(window).split("<assistant>")[0]
        for loader in (data.train_dataloader(), data.calibration_dataloader())
        for window in loader.dataset.windows
    }
    measured = {
        chat_tokenizer.decode(window).split("<assistant>")[0]
        for loader in (data.val_dataloader(), data.test_dataloader())
        for window in loader.dataset.windows
    }
    assert len(measured) == 6
    assert len(seen) == 24
    assert not seen & measured


def test_training_chats_that_are_all_measured_are_refused(
    tmp_path: Path, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    """With the source of both."""
    for split in ("train", "validation"):
        write_rows(tmp_path / f"{split}.jsonl", [chat(i) for i in range(9)])
    data = TextData(str(tmp_path))
    with pytest.raises(ValueError, match="every prompt of the train text .* nothing is left"):
        in_trainer(data, module_of(chat_tokenizer)).setup("fit")
