"""Reference sets of windows and of chats: what an attribution is the mean over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast as Tokenizer

from lightning_prune import Pairs, TextData, Windows
from lightning_prune.data.references import References
from lightning_prune.tokens import IGNORED
from tests.data.words import begin_tokenizer, chat, text, write_rows


@pytest.fixture
def book(tmp_path: Path) -> str:
    path = tmp_path / "book.txt"
    path.write_text(text(300))
    return str(path)


@pytest.fixture
def chats(tmp_path: Path) -> str:
    path = tmp_path / "chats.jsonl"
    write_rows(path, [chat(i, words=1 + i % 5) for i in range(12)])
    return str(path)


def tokens(batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    return torch.cat([batch["input_ids"] for batch in batches])


@pytest.mark.parametrize("begins", [False, True])
def test_windows_are_those_of_calibration(book: str, tokenizer: Tokenizer, begins: bool) -> None:
    """The same tokens for the same seed, with a begin token where calibration has one."""
    tokenizer = begin_tokenizer() if begins else tokenizer
    windows = Windows(source=book, nsamples=6, length=16, seed=3, batch_size=4)
    batches = windows.batches(tokenizer, 64, len(tokenizer))
    data = TextData(book, nsamples=6, length=16, seed=3).attach(tokenizer, 64)
    torch.testing.assert_close(tokens(batches), tokens(list(data.calibration_dataloader())))
    assert [sorted(batch) for batch in batches] == [["input_ids", "labels"]] * 2
    assert windows.describe() == {
        "class": "Windows",
        "arguments": windows.arguments,
        "sequences": 6,
        "tokens": 96,
        "begin": "<bos>" if begins else "",
        "sha256": data.calibration_fingerprint(),
    }


def test_another_seed_draws_other_windows_of_the_same_text(book: str, tokenizer: Tokenizer) -> None:
    """The first set stays as it is."""
    first = Windows(source=book, nsamples=6, length=16)
    second = first.with_seed(1)
    assert repr(second) == f"Windows(source={book!r}, nsamples=6, length=16, seed=1)"
    one, other = (tokens(windows.batches(tokenizer, 64)) for windows in (first, second))
    assert not torch.equal(one, other)
    torch.testing.assert_close(tokens(first.batches(tokenizer, 64)), one)


def test_pairs_are_explained_at_their_answers(chats: str, chat_tokenizer: Tokenizer) -> None:
    """A file is taken whole, the shortest chats first; prompts and padding ask for nothing."""
    pairs = Pairs(source=chats, length=64, batch_size=5)
    batches = pairs.batches(chat_tokenizer, 64)
    assert [len(batch["input_ids"]) for batch in batches] == [5, 5, 2]
    lengths = [
        length
        for batch in batches
        for length in batch.get("attention_mask", torch.ones_like(batch["input_ids"])).sum(1)
    ]
    assert lengths == sorted(lengths)
    answers = set()
    for batch in batches:
        for ids_T, labels_T in zip(batch["input_ids"], batch["labels"], strict=True):
            said = chat_tokenizer.decode(ids_T[labels_T != IGNORED], skip_special_tokens=True)
            answers.add(said)
    # This template has no generation prompt, so that the role belongs to the answer.
    assert answers == {f"<assistant>{' '.join([str(i)] * (1 + i % 5))}" for i in range(12)}
    assert pairs.describe()["sequences"] == 12
    assert pairs.with_seed(7) is pairs, "nothing of it is drawn"


def test_pairs_are_drawn_by_seed(chats: str, chat_tokenizer: Tokenizer) -> None:
    """As many as asked for, each once."""
    pairs = Pairs(source=chats, nsamples=5, length=64, date="2026-11-27")
    described = []
    for seed in (0, 1, 0):
        drawn = pairs.with_seed(seed)
        drawn.batches(chat_tokenizer, 64)
        described.append(drawn.describe())
    assert [facts["sequences"] for facts in described] == [5, 5, 5]
    assert described[0]["sha256"] == described[2]["sha256"] != described[1]["sha256"]
    assert described[0]["date"] == "2026-11-27"


def test_what_was_made_is_described_as_json(book: str, tokenizer: Tokenizer) -> None:
    """Before batches were made, the class and its arguments alone."""
    windows = Windows(source=book, nsamples=2, length=8)
    assert sorted(windows.describe()) == ["arguments", "class"]
    windows.batches(tokenizer, 64)
    assert json.loads(json.dumps(windows.describe()))["tokens"] == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nsamples": 0}, "nsamples=0 is not allowed; it is 1 or more"),
        ({"nsamples": None}, "nsamples=None is not allowed; it is 1 or more"),
        ({"length": 1}, "length=1 is not allowed; it is 2 or more"),
        ({"batch_size": 0}, "batch_size=0 is not allowed; it is 1 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, int], message: str) -> None:
    """When the set is made."""
    with pytest.raises(ValueError, match=f"Windows: {message}"):
        Windows(source="builtin", **arguments)


def test_a_date_that_is_none_is_refused() -> None:
    """When the set is made."""
    with pytest.raises(ValueError, match="date='today' is no date"):
        Pairs(source="chats.jsonl", date="today")


@pytest.mark.parametrize(
    ("set_of", "message"),
    [
        (Windows, "length=65 is not allowed; the model can take 64 tokens; ask for 64 at most"),
        (Pairs, "length=65 is not allowed; the model can take 64 tokens; ask for 64 at most"),
    ],
)
def test_more_than_a_model_can_take_is_refused(
    set_of: type[References], message: str, tokenizer: Tokenizer
) -> None:
    """Before the source is looked for."""
    with pytest.raises(ValueError, match=message):
        set_of(source="nowhere.txt", length=65).batches(tokenizer, 64)


def test_tokens_that_a_model_lacks_are_refused(book: str, tokenizer: Tokenizer) -> None:
    """With the text that holds them."""
    with pytest.raises(ValueError, match=r"the model 40: the .*text of '.*book.txt' holds token"):
        Windows(source=book, nsamples=2, length=8).batches(tokenizer, 64, 40)


def test_pairs_of_a_plain_text_are_refused(book: str, tokenizer: Tokenizer) -> None:
    """It has no answers."""
    with pytest.raises(ValueError, match="holds texts, no prompts with answers and no chats"):
        Pairs(source=book).batches(tokenizer, 512)
