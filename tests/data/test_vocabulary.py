"""Tokens that a model has no embedding for: padding with another, and text of another tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import PreTrainedTokenizerFast as Tokenizer

from lightning_prune import TextData, Wanda, prune
from lightning_prune.data.documents import Documents
from lightning_prune.data.judged import JudgedText
from lightning_prune.tokens import known_pad_token
from tests.data import words
from tests.data.modules import in_trainer
from tests.data.words import chat, text
from tests.tiny import tiny_model

WRONG = "the tokenizer has 300 tokens, the model 260"


@pytest.fixture
def padded() -> Tokenizer:
    """Its padding token was added, and the model of 300 tokens has no embedding for it."""
    tokenizer = words.tokenizer(chat=True)
    tokenizer.add_special_tokens({"pad_token": "<newpad>"})
    assert tokenizer.pad_token_id == 300
    return tokenizer


@pytest.mark.parametrize("vocabulary", [None, 300])
def test_padding_is_a_token_that_the_model_has(
    tmp_path: Path, padded: Tokenizer, vocabulary: int | None
) -> None:
    """It is masked: any would do. Pruning and perplexity work as with another tokenizer."""
    rows = [chat(i, words=1 + i % 5) for i in range(40)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = TextData(str(tmp_path / "chats.jsonl"), nsamples=8, batch_size=4)
    batches = list(data.attach(padded, 40, vocabulary).calibration_dataloader())
    assert any((batch["attention_mask"] == 0).any() for batch in batches)
    assert all(int(batch["input_ids"].max()) < 300 for batch in batches)
    model = tiny_model("llama", vocab_size=300)
    assert prune(model, Wanda(sparsity=0.5), batches).sparsity() == pytest.approx(0.5, abs=0.01)
    judged = JudgedText.cut(
        Documents([row["messages"] for row in rows]), padded, 40, "chats", "test", None, None, 300
    )
    assert all(int(batch["input_ids"].max()) < 300 for batch in judged.batches(4))


def test_a_padding_token_that_the_model_has_stays(padded: Tokenizer, tokenizer: Tokenizer) -> None:
    """Where that is known; else only tokens that the tokenizer began with are sure."""
    assert known_pad_token(tokenizer) == tokenizer.pad_token_id
    assert known_pad_token(padded, 301) == 300
    assert known_pad_token(padded, 300) == known_pad_token(padded) == 0
    assert known_pad_token(SimpleNamespace(pad_token_id=None, vocab_size=9)) == 0


@pytest.mark.parametrize("use", ["calibration", "train", "validation", "test"])
def test_text_of_another_tokenizer_is_refused_when_it_is_cut(
    tmp_path: Path, tokenizer: Tokenizer, use: str
) -> None:
    """In one line that says how many tokens both have, before a model runs."""
    (tmp_path / "book.txt").write_text(text(500))
    data = TextData(str(tmp_path / "book.txt"), nsamples=4, length=16).attach(tokenizer, 64, 260)
    with pytest.raises(ValueError, match=f"{WRONG}: the ") as told:
        data._windows(use)
    assert "\n" not in str(told.value)


def test_the_module_says_how_many_tokens_there_are(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """In a Trainer: it is refused in setup."""
    (tmp_path / "book.txt").write_text(text(500))
    module = SimpleNamespace(tokenizer=tokenizer, max_position_embeddings=64, vocabulary=260)
    with pytest.raises(ValueError, match=f"{WRONG}: the train text"):
        in_trainer(TextData(str(tmp_path / "book.txt"), length=16), module).setup("fit")
    module.vocabulary = 300
    in_trainer(TextData(str(tmp_path / "book.txt"), length=16), module).setup("fit")


def test_texts_to_judge_by_are_looked_at_too(tokenizer: Tokenizer) -> None:
    """When they are cut."""
    with pytest.raises(ValueError, match=f"{WRONG}: the test text"):
        JudgedText.cut(Documents([text(50)]), tokenizer, 16, "book", "test", None, None, 260)


# --- without TextData ---


def test_prune_refuses_tokens_that_the_model_does_not_have() -> None:
    """Its own batches' too; and not those that are masked."""
    model, ids_BT = tiny_model("llama"), torch.tensor([[3, 4, 5, 64], [6, 7, 8, 9]])
    with pytest.raises(ValueError, match=r"hold token 64, and the model has 64 tokens \(0 to 63\)"):
        prune(model, Wanda(sparsity=0.5), [{"input_ids": ids_BT}])
    with pytest.raises(ValueError, match="hold token -1"):
        prune(model, Wanda(sparsity=0.5), [{"input_ids": ids_BT.clamp(max=9) * -1 + 2}])
    plans = []
    for pad in (64, -1, 9):
        ids_BT[0, 3] = pad
        batch = {"input_ids": ids_BT, "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])}
        plans.append(prune(tiny_model("llama"), Wanda(sparsity=0.5), [batch]).fingerprint())
        assert int(ids_BT[0, 3]) == pad, "the batch is its owner's"
    assert len(set(plans)) == 1
