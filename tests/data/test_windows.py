"""Windows of tokens: which ones are drawn, and what a batch of them is."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lightning_prune.data.documents import Documents
from lightning_prune.data.tokenizer import train_tokenizer
from lightning_prune.data.windows import Windows, collate, consecutive_windows, random_windows
from tests.data.words import chat, lines, text

Tokenizer = PreTrainedTokenizerFast


def test_random_windows_are_drawn_as_the_reference_codes_do(tokenizer: Tokenizer) -> None:
    """Starts are uniform over 0 … tokens - length - 1, from random.Random(seed)."""
    ids = torch.tensor(tokenizer(text(50))["input_ids"])
    windows = random_windows(Documents([text(50)]), tokenizer, count=5, length=16, seed=3)
    generator = random.Random(3)
    starts = [generator.randint(0, len(ids) - 16 - 1) for _ in range(5)]
    expected = torch.stack([ids[start : start + 16] for start in starts])
    torch.testing.assert_close(torch.stack(list(windows.windows)), expected)


def test_separate_documents_give_a_window_each(tokenizer: Tokenizer) -> None:
    """Documents as long as a window or shorter are passed over, as the reference codes do."""
    texts = ["short", *(text(8, seed) for seed in range(4)), "brief"]
    ids = [tokenizer(one)["input_ids"] for one in texts]
    windows = random_windows(Documents(texts, separate=True), tokenizer, 6, length=20, seed=0)
    generator, expected = random.Random(0), []
    while len(expected) < 6:
        drawn = ids[generator.randint(0, len(texts) - 1)]
        if len(drawn) > 20:
            start = generator.randint(0, len(drawn) - 20 - 1)
            expected.append(drawn[start : start + 20])
    assert [window.tolist() for window in windows.windows] == expected


def test_random_windows_depend_on_their_seed_only(tokenizer: Tokenizer) -> None:
    """The global random state is neither read nor moved."""
    documents = Documents([text(50)])

    def drawn(seed: int) -> list[list[int]]:
        return [w.tolist() for w in random_windows(documents, tokenizer, 4, 8, seed).windows]

    random.seed(1)
    before, first = random.getstate(), drawn(0)
    assert random.getstate() == before
    random.seed(2)
    assert drawn(0) == first
    assert drawn(1) != first


def test_blocks_are_consecutive_and_the_last_partial_one_is_dropped(tokenizer: Tokenizer) -> None:
    """The windows one after another are the start of the text."""
    ids = tokenizer(text(20))["input_ids"]
    windows = consecutive_windows(Documents([text(20)]), tokenizer, 16, "test")
    assert len(windows) == len(ids) // 16
    assert torch.cat(list(windows.windows)).tolist() == ids[: len(windows) * 16]


def test_text_that_is_too_short_is_refused_with_the_numbers(tokenizer: Tokenizer) -> None:
    """Tokens found, windows asked, their length, and what to do."""
    short = Documents([lines(1)[0]])
    tokens = len(tokenizer(short.text())["input_ids"])
    with pytest.raises(ValueError, match=f"{tokens} tokens.* of 32; 7 are asked for.*nsamples"):
        random_windows(short, tokenizer, 7, 32, 0)
    with pytest.raises(ValueError, match=f"test text has {tokens} tokens.* 64.*length"):
        consecutive_windows(short, tokenizer, 64, "test text")
    several = Documents(lines(3), separate=True)
    with pytest.raises(ValueError, match="none of 3 documents has more than 99 tokens.*length"):
        random_windows(several, tokenizer, 2, 99, 0)


def test_chats_are_rendered_by_the_template(chat_tokenizer: Tokenizer) -> None:
    """One window each, cut at the length; special tokens only where the template puts them."""
    chats = Documents([chat(i, words=1 + i * 10)["messages"] for i in range(3)])
    rendered = [chat_tokenizer.apply_chat_template(c, tokenize=False) for c in chats.items]
    assert rendered[0] == "<user>count 0<|endoftext|><assistant>0<|endoftext|>"
    ids = chat_tokenizer(rendered, add_special_tokens=False)["input_ids"]
    windows = consecutive_windows(chats, chat_tokenizer, 40, "train")
    assert [w.tolist() for w in windows.windows] == [row[:40] for row in ids]
    assert len(windows[0][0]) < len(windows[2][0]) == 40


def test_calibration_chats_are_drawn_without_repetition(chat_tokenizer: Tokenizer) -> None:
    """And more than there are cannot be drawn."""
    chats = Documents([chat(i)["messages"] for i in range(6)])
    windows = random_windows(chats, chat_tokenizer, 6, 99, seed=1)
    assert len({tuple(w.tolist()) for w in windows.windows}) == 6
    with pytest.raises(ValueError, match="6 chats .*; 7 are asked for.*lower nsamples"):
        random_windows(chats, chat_tokenizer, 7, 99, seed=1)


def test_without_an_answer_in_its_window_a_chat_is_left_out(chat_tokenizer: Tokenizer) -> None:
    """With a warning; if none is left, with an error that says why."""
    chats = Documents([chat(0)["messages"], chat(1)["messages"]])
    chats.items[0][0]["content"] = "long " * 50
    with pytest.warns(UserWarning, match="1 of 2 chats of the train text have no answer within"):
        windows = consecutive_windows(chats, chat_tokenizer, 30, "train text")
    assert len(windows) == 1
    with pytest.raises(ValueError, match="has 2 chats, and none has an answer within its first 3"):
        consecutive_windows(chats, chat_tokenizer, 3, "train text")


def test_padding_is_masked_and_not_asked_for() -> None:
    """On the right, up to the longest window; real tokens equal to the padding stay."""
    windows = Windows([torch.tensor([5, 0, 6]), torch.tensor([7])])
    batch = collate([windows[0], windows[1]], pad=0)
    assert batch["input_ids"].tolist() == [[5, 0, 6], [7, 0, 0]]
    assert batch["labels"].tolist() == [[5, 0, 6], [7, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_without_padding_there_is_no_mask() -> None:
    """Windows of one length need none, also if a token of theirs is the padding token."""
    windows = Windows(torch.tensor([[5, 0], [7, 8]]))
    batch = collate([windows[0], windows[1]], pad=0)
    assert set(batch) == {"input_ids", "labels"}
    assert batch["labels"].tolist() == [[5, 0], [7, 8]]


def test_a_window_that_fills_up_asks_for_nothing() -> None:
    """Its tokens are real, and its labels are all ignored."""
    windows = Windows(torch.tensor([[5, 6]]))
    batch = collate([windows[0], windows[None]], pad=0)
    assert batch["input_ids"].tolist() == [[5, 6], [5, 6]]
    assert batch["labels"].tolist() == [[5, 6], [-100, -100]]


def test_a_trained_tokenizer_is_always_the_same_and_loses_nothing() -> None:
    """Same text, same tokens; any text comes back, seen or not."""
    first, second = (train_tokenizer([text(100)], 320) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    assert len(first) == 320
    assert first.eos_token == first.pad_token == "<|endoftext|>"
    strange = "tree\tnaïve 日本 🙂\r\n"
    assert first.decode(first(strange)["input_ids"]) == strange
    with pytest.raises(ValueError, match="train_tokenizer=256 is below 257"):
        train_tokenizer([text(1)], 256)
