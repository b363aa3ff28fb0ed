"""Texts that models are judged by, in windows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast as Tokenizer

from lightning_prune.data.judged import JudgedText, judged_documents, window_length
from tests.data.words import chat, text


def test_chats_are_judged_by_their_answers(tmp_path: Path, chat_tokenizer: Tokenizer) -> None:
    """Of the first so many, in their order; prompts and padding ask for nothing."""
    file = tmp_path / "chats.jsonl"
    file.write_text("\n".join(json.dumps(chat(i, words=1 + i)) for i in range(30)))
    documents = judged_documents(str(file), "test")
    one = JudgedText.cut(documents, chat_tokenizer, 40, "chats", "test", most=5)
    assert (one.part, len(one.windows)) == ("whole", 5)
    batches = one.batches(2)
    assert [len(batch["input_ids"]) for batch in batches] == [2, 2, 1]
    whole = JudgedText.cut(documents, chat_tokenizer, 40, "chats", "test")
    for i, (ids_T, labels_T) in enumerate(whole.windows[j] for j in range(5)):
        row = {name: tensor[i % 2] for name, tensor in batches[i // 2].items()}
        assert torch.equal(row["input_ids"][: len(ids_T)], ids_T)
        assert torch.equal(row["labels"][: len(ids_T)], labels_T)
        assert (row["labels"][len(ids_T) :] == -100).all()
        assert -100 in labels_T


def test_a_source_of_the_training_keeps_its_share_apart_under_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file, named from here and from the root."""
    (tmp_path / "book.txt").write_text(text(400))
    monkeypatch.chdir(tmp_path)
    apart = [str(tmp_path / "book.txt")]
    assert judged_documents("book.txt", "test", apart=apart).part == "test, 5% of it"
    assert judged_documents("book.txt", "test", apart=["other.txt"]).part == "whole"


def test_a_window_is_what_the_model_can_take_unless_asked_otherwise() -> None:
    """And 2048 at most."""
    assert (window_length(None, 64), window_length(None, 4096)) == (64, 2048)
    assert window_length(4096, 4096) == 4096
    with pytest.raises(ValueError, match="lengths=65 is more than the 64 tokens"):
        window_length(65, 64)
