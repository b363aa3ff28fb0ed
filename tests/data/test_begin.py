"""What windows begin with: as the tokenizer begins a text, unless asked otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast as Tokenizer

from lightning_prune.data import TextData
from lightning_prune.data.cache import token_stream
from lightning_prune.data.chats import encoded
from lightning_prune.data.documents import Documents
from lightning_prune.data.judged import JudgedText
from lightning_prune.data.layouts import chat_of
from lightning_prune.data.rendering import Rendering
from lightning_prune.data.windows import Windows, consecutive_windows, random_windows
from lightning_prune.tokens import IGNORED, begin_tokens, next_tokens
from tests.data import words
from tests.data.words import text

WITHOUT = Rendering(begin_token=False)
WITH = Rendering(begin_token=True)


@pytest.fixture(scope="module")
def begins() -> Tokenizer:
    """Puts <bos> in front of every text."""
    return words.begin_tokenizer()


def plain(tokenizer: Tokenizer, of: str) -> list[int]:
    return tokenizer(of, add_special_tokens=False)["input_ids"]


def predicted(windows: Windows) -> list[int]:
    """The tokens that are predicted, in their order."""
    ids_NT, labels_NT = torch.stack(list(windows.windows)), torch.stack(list(windows.labels))
    asked_NT = next_tokens({"input_ids": ids_NT, "labels": labels_NT})
    return asked_NT[asked_NT != IGNORED].tolist()


# --- windows in a row ---


def test_every_window_begins_as_the_tokenizer_begins_a_text(begins: Tokenizer) -> None:
    """Behind its begin token come the next n - 1 tokens: none is lost, and none comes twice."""
    windows = consecutive_windows(Documents([text(20)]), begins, 16)
    assert {int(window[0]) for window in windows.windows} == {begins.bos_token_id}
    of_text = torch.cat([window[1:] for window in windows.windows]).tolist()
    stream = plain(begins, text(20))
    assert len(windows) == len(stream) // 15
    assert of_text == stream[: len(windows) * 15]


def test_all_tokens_of_the_text_are_predicted_and_the_begin_token_is_not(
    begins: Tokenizer,
) -> None:
    """Each from its begin token on; without it the first token of each window is not."""
    windows = consecutive_windows(Documents([text(20)]), begins, 16)
    assert predicted(windows) == plain(begins, text(20))[: 15 * len(windows)]
    without = consecutive_windows(Documents([text(20)]), begins, 16, rendering=WITHOUT)
    assert predicted(without) == [int(i) for window in without.windows for i in window[1:]]


def test_without_begin_tokens_the_whole_text_alone_begins_with_one(begins: Tokenizer) -> None:
    """As the codes of Wanda and SparseGPT tokenise."""
    windows = consecutive_windows(Documents([text(20)]), begins, 16, rendering=WITHOUT)
    stream = begins(text(20))["input_ids"]
    assert stream[0] == begins.bos_token_id
    assert torch.cat(list(windows.windows)).tolist() == stream[: 16 * len(windows)]
    assert windows.begin == ()


def test_a_begin_token_can_be_asked_of_a_tokenizer_that_puts_none(tokenizer: Tokenizer) -> None:
    """Its bos_token; without one that is refused. By default its windows have none."""
    windows = consecutive_windows(Documents([text(20)]), tokenizer, 16, rendering=WITH)
    assert {int(window[0]) for window in windows.windows} == {tokenizer.bos_token_id}
    assert predicted(windows) == plain(tokenizer, text(20))[: 15 * len(windows)]
    assert begin_tokens(tokenizer) == ()
    nameless = Tokenizer(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(
        ValueError, match="begin_token=True.* has no begin token.*Leave begin_token"
    ):
        consecutive_windows(Documents([text(20)]), nameless, 16, rendering=WITH)


def test_several_begin_tokens_are_none_to_be_predicted() -> None:
    """As of GLM: none of them is asked for, and all stand in front of every window."""
    two = words.begin_tokenizer(("<gmask>", "<sop>"))
    windows = consecutive_windows(Documents([text(20)]), two, 16)
    begin = begin_tokens(two)
    assert len(begin) == 2
    assert all(window[:2].tolist() == list(begin) for window in windows.windows)
    assert predicted(windows) == plain(two, text(20))[: 14 * len(windows)]
    with pytest.raises(ValueError, match="2 tokens has no room for text behind 2 begin tokens"):
        consecutive_windows(Documents([text(20)]), two, 2)


# --- calibration ---


@pytest.mark.parametrize("separate", [False, True])
def test_calibration_windows_begin_so_too(begins: Tokenizer, separate: bool) -> None:
    """Wherever in the text they are from; the text behind is in one piece."""
    documents = Documents([text(30, seed) for seed in range(4)], separate=separate)
    windows = random_windows(documents, begins, 5, 20, seed=1)
    streams = [
        plain(begins, item) for item in (documents.items if separate else [documents.text()])
    ]
    for window in windows.windows:
        first, *rest = window.tolist()
        assert first == begins.bos_token_id
        assert any(
            rest == stream[i : i + 19] for stream in streams for i in range(len(stream) - 18)
        )
    without = random_windows(documents, begins, 5, 20, seed=1, rendering=WITHOUT)
    assert sum(int(window[0]) == begins.bos_token_id for window in without.windows) < 5


# --- all uses agree, and say so ---


def test_all_uses_of_a_text_begin_alike_and_it_is_said(tmp_path: Path, begins: Tokenizer) -> None:
    """Calibration, training, validation, test, and what `Evaluate` judges by."""
    (tmp_path / "book.txt").write_text(text(500))
    data = TextData(str(tmp_path / "book.txt"), nsamples=4, length=16).attach(begins, 64)
    data.setup("fit")
    data.setup("test")
    batches = [
        *data.calibration_dataloader(),
        *data.train_dataloader(),
        *data.val_dataloader(),
        *data.test_dataloader(),
    ]
    assert all((batch["input_ids"][:, 0] == begins.bos_token_id).all() for batch in batches)
    assert data.described("test").endswith("windows of 16 tokens, each begun with <bos>")
    judged = JudgedText.cut(Documents([text(50)]), begins, 16, "book", "test", most=2)
    assert judged.begin == "<bos>"
    assert judged.windows.windows[:, 0].tolist() == [begins.bos_token_id] * 2


def test_the_setting_reaches_every_use(tmp_path: Path, begins: Tokenizer) -> None:
    """One switch: as published figures have it."""
    (tmp_path / "book.txt").write_text(text(500))
    data = TextData(str(tmp_path / "book.txt"), length=16, begin_token=False).attach(begins, 64)
    data.setup("fit")
    [*batches] = data.val_dataloader()
    assert (
        sum(int((batch["input_ids"][:, 0] == begins.bos_token_id).sum()) for batch in batches) < 2
    )
    assert data.described("validation").endswith("windows of 16 tokens")


def test_tokens_with_and_without_special_ones_are_cached_apart(begins: Tokenizer) -> None:
    """Neither is taken for the other."""
    for _ in range(2):
        with_ids = token_stream(text(5), begins).tolist()
        without = token_stream(text(5), begins, special=False).tolist()
        assert with_ids == [begins.bos_token_id, *without]


# --- chats ---


def test_prompts_without_a_template_begin_so_too(begins: Tokenizer, tokenizer: Tokenizer) -> None:
    """As the tokenizer does, and where one is asked for; a template writes its own."""
    chat = chat_of({"instruction": "count", "output": "one"}) or []
    first = [encoded(chat, begins, 999, Rendering()), encoded(chat, tokenizer, 999, WITH)]
    for found, token in zip(first, (begins.bos_token_id, tokenizer.bos_token_id), strict=True):
        assert found is not None
        assert int(found[0][0]) == token
        assert int((found[0][:3] == token).sum()) == 1
        assert int(found[1][0]) == IGNORED
    without = encoded(chat, tokenizer, 999, Rendering())
    assert without is not None
    assert int(without[0][0]) != tokenizer.bos_token_id
