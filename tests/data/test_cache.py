"""Tokens on disk."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lightning_prune.data import cache as room
from lightning_prune.data.cache import token_stream
from lightning_prune.data.tokenizer import train_tokenizer
from tests.data.words import text

Tokenizer = PreTrainedTokenizerFast


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were tokenised, in order."""
    texts: list[str] = []
    tokenise: Any = room._tokenise

    def counted(one: str, tokenizer: Tokenizer, special: bool) -> torch.Tensor:
        texts.append(one)
        return tokenise(one, tokenizer, special)

    monkeypatch.setattr(room, "_tokenise", counted)
    return texts


def test_a_text_is_tokenised_once(cache: Path, made: list[str], tokenizer: Tokenizer) -> None:
    """The second time, its tokens come from the file."""
    first, second = (token_stream(text(5), tokenizer) for _ in range(2))
    torch.testing.assert_close(first, second)
    assert first.tolist() == tokenizer(text(5))["input_ids"]
    assert made == [text(5)]
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_another_text_or_tokenizer_is_another_entry(made: list[str], tokenizer: Tokenizer) -> None:
    """What was made with one tokenizer is not given to another."""
    other = train_tokenizer([text(50, seed=9)], 280)
    assert token_stream(text(5), tokenizer).tolist() != token_stream(text(5), other).tolist()
    token_stream(text(6), tokenizer)
    assert len(made) == 3


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_file_is_made_again(
    damage: bytes | None, cache: Path, made: list[str], tokenizer: Tokenizer
) -> None:
    """Empty, overwritten, or cut short."""
    expected = token_stream(text(5), tokenizer)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] if damage is None else damage)
    torch.testing.assert_close(token_stream(text(5), tokenizer), expected)
    assert len(made) == 2
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer
) -> None:
    """Everything works without it; the warning says what to set."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LIGHTNING_PRUNE_CACHE", str(tmp_path / "file" / "cache"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for count in (5, 6, 7):
            assert len(token_stream(text(count), tokenizer)) > 5
    assert ["set LIGHTNING_PRUNE_CACHE" in str(warning.message) for warning in caught] == [True]


def test_a_long_text_is_tokenised_in_pieces_that_end_with_a_line(
    monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer
) -> None:
    """The pieces' tokens are those of the text, also where a line is longer than a piece."""
    monkeypatch.setattr(room, "PIECE", 100)
    long = text(9) + "tree" * 60 + "\n" + text(2)
    assert tokenizer.decode(token_stream(long, tokenizer)) == long
    by_lines = [i for line in text(9).splitlines(True) for i in tokenizer(line)["input_ids"]]
    assert token_stream(text(9), tokenizer).tolist() == by_lines
