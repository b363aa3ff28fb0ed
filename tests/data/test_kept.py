"""The calibration tokens that a run's folder keeps: used again while the run asks for the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast as Tokenizer

from lightning_prune.data import TextData
from lightning_prune.data.documents import Documents
from lightning_prune.data.kept import KEPT, KeptTokens
from lightning_prune.data.windows import Windows, random_windows
from tests.data import words
from tests.data.words import chat, text

DATED = "{{ strftime_now('%d %b %Y') }}\n" + words.CHAT_TEMPLATE
FIRST, NEXT = date(2026, 11, 27), date(2026, 11, 28)


@pytest.fixture
def on_day(monkeypatch: pytest.MonkeyPatch) -> Callable[[date], None]:
    """Let it be another day."""

    def set_day(day: date) -> None:
        monkeypatch.setattr("lightning_prune.data.rendering.today", lambda: day)

    return set_day


@pytest.fixture
def dated() -> Tokenizer:
    """Its template writes the date."""
    tokenizer = words.tokenizer(chat=True)
    tokenizer.chat_template = DATED
    return tokenizer


@pytest.fixture
def chats(tmp_path: Path) -> str:
    """A file of chats."""
    file = tmp_path / "chats.jsonl"
    file.write_text("\n".join(json.dumps(chat(i)) for i in range(60)))
    return str(file)


def data_of(source: str, tokenizer: Tokenizer, **settings: Any) -> TextData:
    asked = {"nsamples": 6, "length": 60} | settings
    return TextData(source, **asked).attach(tokenizer, 64)


def kept_by(data: TextData, folder: Path) -> str:
    """Its calibration fingerprint, when it has been kept."""
    fingerprint = data.calibration_fingerprint()
    data.keep(folder)
    return fingerprint


# --- dates ---


def test_a_run_goes_on_with_its_own_tokens_on_another_day(
    tmp_path: Path, chats: str, dated: Tokenizer, on_day: Callable[[date], None]
) -> None:
    """Calibration, training and validation; a run of its own has those of its day."""
    on_day(FIRST)
    first = data_of(chats, dated)
    fingerprint = kept_by(first, tmp_path / "run")
    train = [ids.tolist() for ids in first._windows("train").windows]
    on_day(NEXT)
    second, another = data_of(chats, dated), data_of(chats, dated)
    assert second._windows("train").windows[0].tolist() != train[0]
    second.restore(tmp_path / "run")
    assert second.calibration_fingerprint() == fingerprint
    assert second.dated == "2026-11-27"
    assert [ids.tolist() for ids in second._windows("train").windows] == train
    another.restore(tmp_path / "empty")
    assert another.calibration_fingerprint() != fingerprint
    assert "28 Nov 2026" in dated.decode(another._windows("calibration").windows[0])


def test_the_date_of_a_run_is_a_setting(
    tmp_path: Path, chats: str, dated: Tokenizer, on_day: Callable[[date], None]
) -> None:
    """The same on every day, and the same as that of a run which began then."""
    on_day(FIRST)
    fingerprint = kept_by(data_of(chats, dated), tmp_path / "run")
    on_day(NEXT)
    data = data_of(chats, dated, date="2026-11-27")
    assert data.calibration_fingerprint() == fingerprint
    data.restore(tmp_path / "run")
    assert data.calibration_fingerprint() == fingerprint
    assert data.described("validation").endswith("60 tokens at most, dated 2026-11-27")
    other = data_of(chats, dated, date="2026-11-30")
    other.restore(tmp_path / "run")
    assert other.calibration_fingerprint() != fingerprint
    with pytest.raises(ValueError, match="date='27.11.2026' is no date; write it as 2026-11-27"):
        TextData(date="27.11.2026")


def test_a_checkpoint_brings_the_date(
    chats: str, dated: Tokenizer, on_day: Callable[[date], None]
) -> None:
    """For runs that calibrate nothing; a date that is asked for stays."""
    on_day(FIRST)
    first = data_of(chats, dated)
    train = [ids.tolist() for ids in first._windows("train").windows]
    state = first.state_dict()
    on_day(NEXT)
    second, third = data_of(chats, dated), data_of(chats, dated, date="2026-11-30")
    for data in (second, third):
        data._windows("train")
        data.load_state_dict(state)
    assert [ids.tolist() for ids in second._windows("train").windows] == train
    assert third.dated == "2026-11-30"


def test_text_without_a_date_has_none(
    tmp_path: Path, chats: str, chat_tokenizer: Tokenizer, on_day: Callable[[date], None]
) -> None:
    """Neither in what is said of it, nor in checkpoints, nor in its tokens."""
    on_day(FIRST)
    data = data_of(chats, chat_tokenizer)
    fingerprint = data.calibration_fingerprint()
    assert (data.dated, data.state_dict()) == (None, {})
    on_day(NEXT)
    assert data_of(chats, chat_tokenizer).calibration_fingerprint() == fingerprint


# --- what is asked for ---


def test_the_tokens_of_a_run_are_used_again_however_they_would_come_out_now(
    tmp_path: Path, chats: str, chat_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of a library may render and tokenise a little otherwise."""
    fingerprint = kept_by(data_of(chats, chat_tokenizer), tmp_path / "run")
    monkeypatch.setattr(
        "lightning_prune.data.texts.random_windows",
        lambda *_: Windows([torch.tensor([5, 6, 7])] * 6),
    )
    data = data_of(chats, chat_tokenizer)
    data.restore(tmp_path / "run")
    assert data.calibration_fingerprint() == fingerprint


@pytest.mark.parametrize(
    "changed",
    [{"nsamples": 5}, {"length": 50}, {"seed": 1}, {"train_on_prompt": True}],
    ids=lambda changed: next(iter(changed)),
)
def test_other_settings_are_other_tokens(
    tmp_path: Path, chats: str, chat_tokenizer: Tokenizer, changed: dict[str, Any]
) -> None:
    """As without anything that was kept."""
    kept_by(data_of(chats, chat_tokenizer), tmp_path / "run")
    data = data_of(chats, chat_tokenizer, **changed)
    data.restore(tmp_path / "run")
    alone = data_of(chats, chat_tokenizer, **changed)
    assert data.calibration_fingerprint() == alone.calibration_fingerprint()


def test_a_begin_token_is_another_setting(tmp_path: Path) -> None:
    """Of text, where the windows differ in it alone."""
    (tmp_path / "book.txt").write_text(text(200))
    begins = words.begin_tokenizer()
    kept_by(data_of(str(tmp_path / "book.txt"), begins), tmp_path / "run")
    data = data_of(str(tmp_path / "book.txt"), begins, begin_token=False)
    data.restore(tmp_path / "run")
    assert data._windows("calibration").begin == ()


def test_another_text_another_tokenizer_and_another_template_are_seen(
    tmp_path: Path, chats: str, chat_tokenizer: Tokenizer
) -> None:
    """What the tokens are made of is compared, not where it lies."""
    kept_by(data_of(chats, chat_tokenizer), tmp_path / "run")
    bigger = words.tokenizer(chat=True)
    bigger.add_tokens(["count 1"])
    louder = words.tokenizer(chat=True)
    louder.chat_template = words.CHAT_TEMPLATE.replace("<", "[")
    for tokenizer in (bigger, louder):
        data, alone = data_of(chats, tokenizer), data_of(chats, tokenizer)
        data.restore(tmp_path / "run")
        assert data.calibration_fingerprint() == alone.calibration_fingerprint()
    moved = tmp_path / "moved.jsonl"
    moved.write_text(Path(chats).read_text())
    Path(chats).write_text("\n".join(json.dumps(chat(i, words=4)) for i in range(60)))
    changed, same = data_of(chats, chat_tokenizer), data_of(str(moved), chat_tokenizer)
    kept = KeptTokens.load(tmp_path / "run")
    assert kept is not None
    for data, restored in ((changed, False), (same, True)):
        data.restore(tmp_path / "run")
        found = data._windows("calibration").windows
        assert all(map(torch.equal, found, kept.windows.windows)) is restored


# --- the file ---


@pytest.mark.parametrize("kind", ["text", "documents", "chats", "begun"])
def test_what_is_read_is_what_was_written(
    tmp_path: Path, chat_tokenizer: Tokenizer, kind: str
) -> None:
    """Tokens, labels, and whether they are one table."""
    tokenizer, items = chat_tokenizer, [text(30, seed) for seed in range(4)]
    if kind == "begun":
        tokenizer = words.begin_tokenizer(("<a>", "<b>"))
    documents = Documents(items, separate=kind == "documents")
    if kind == "chats":
        documents = Documents([chat(i)["messages"] for i in range(9)])
    windows = random_windows(documents, tokenizer, 3, 20, seed=0)
    KeptTokens(windows, {"begin": list(windows.begin)}, FIRST).save(tmp_path)
    kept = KeptTokens.load(tmp_path)
    assert kept is not None
    assert type(kept.windows.windows) is type(windows.windows)
    torch.testing.assert_close(list(kept.windows.windows), list(windows.windows))
    torch.testing.assert_close(list(kept.windows.labels), list(windows.labels))
    assert (kept.windows.labels is kept.windows.windows) == (windows.labels is windows.windows)
    assert (kept.day, kept.windows.begin) == (FIRST, windows.begin)


def test_a_damaged_file_is_said_and_made_again(
    tmp_path: Path, chats: str, chat_tokenizer: Tokenizer
) -> None:
    """Truncated, or with other tokens than its hash says."""
    fingerprint = kept_by(data_of(chats, chat_tokenizer), tmp_path / "run")
    whole = (tmp_path / "run" / KEPT).read_bytes()
    other = bytearray(whole)
    other[-2] ^= 1
    for content in (whole[:-9], bytes(other), b"nothing"):
        (tmp_path / "run" / KEPT).write_bytes(content)
        data = data_of(chats, chat_tokenizer)
        with pytest.warns(UserWarning, match="calibration.safetensors is damaged"):
            data.restore(tmp_path / "run")
        assert data.calibration_fingerprint() == fingerprint
    data.keep(tmp_path / "run")
    assert (tmp_path / "run" / KEPT).read_bytes() == whole
    assert KeptTokens.load(tmp_path / "none") is None
