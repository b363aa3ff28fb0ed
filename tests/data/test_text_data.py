"""TextData without a Trainer, or with one that only says where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lightning_prune.data import TextData
from lightning_prune.data.tokenizer import train_tokenizer
from tests.data.modules import ids_of, in_trainer, module_of
from tests.data.words import chat, text, write_rows

Tokenizer = PreTrainedTokenizerFast


@pytest.fixture
def book(tmp_path: Path) -> str:
    """The path of a text of some thousand tokens."""
    (tmp_path / "book.txt").write_text(text(500))
    return str(tmp_path / "book.txt")


def test_every_split_comes_in_windows(book: str, tokenizer: Tokenizer) -> None:
    """Of as many tokens as asked for, in batches, with labels and without a mask."""
    data = TextData(book, nsamples=5, length=16, batch_size=4).attach(tokenizer, 64)
    loaders = {
        "calibration": data.calibration_dataloader(),
        "train": data.train_dataloader(),
        "validation": data.val_dataloader(),
        "test": data.test_dataloader(),
        "predict": data.predict_dataloader(),
    }
    batches = {name: list(loader) for name, loader in loaders.items()}
    assert [len(batch["input_ids"]) for batch in batches["calibration"]] == [4, 1]
    for split in batches.values():
        for batch in split:
            assert set(batch) == {"input_ids", "labels"}
            assert batch["input_ids"].shape[1:] == (16,)
            assert batch["input_ids"].dtype == torch.long
            assert batch["labels"].equal(batch["input_ids"])
    assert ids_of(batches["predict"]) == ids_of(batches["test"])
    assert tokenizer.decode(batches["validation"][0]["input_ids"].flatten()) in text(500)


def test_the_builtin_text_needs_no_argument(tokenizer: Tokenizer) -> None:
    """TextData() works as it is, with 2048 tokens at most in a window."""
    data = TextData().attach(tokenizer, 131072)
    batches = list(data.calibration_dataloader())
    assert sum(len(batch["input_ids"]) for batch in batches) == 128
    assert batches[0]["input_ids"].shape == (8, 2048)
    data.setup("fit")
    data.setup("test")


def test_windows_are_no_longer_than_the_model_can_take(book: str, tokenizer: Tokenizer) -> None:
    """By default they fit, also another model later; what is asked for is checked."""
    data = TextData(book)
    for most in (24, 16, 32):
        assert data.attach(tokenizer, most).val_dataloader().dataset[0][0].shape == (most,)
    with pytest.raises(ValueError, match="length=25 is more than the 24 tokens"):
        TextData(book, length=25).attach(tokenizer, 24)


@pytest.mark.parametrize("wrong", [{"nsamples": 0}, {"batch_size": 0}, {"length": 1}])
def test_values_out_of_range_are_refused_at_once(wrong: dict[str, Any]) -> None:
    """In the constructor, by their names."""
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        TextData(**wrong)


def test_splits_can_come_from_other_sources(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Each from the split of the same name, calibration from train."""
    for name in ("source", "calibration", "validation", "test"):
        (tmp_path / name).mkdir()
        for split in ("train", "validation", "test"):
            (tmp_path / name / f"{split}.txt").write_text(f"{name} {split} {'.' * 99}")
    others = {n: str(tmp_path / n) for n in ("calibration", "validation", "test")}
    data = TextData(str(tmp_path / "source"), nsamples=1, length=30, **others)  # type: ignore[arg-type]
    data.attach(tokenizer, 30)

    def text_of(loader: Any) -> str:
        return "".join(tokenizer.decode(row) for batch in loader for row in batch["input_ids"])

    assert "source train ." in text_of(data.train_dataloader())
    assert "validation validation ." in text_of(data.val_dataloader())
    assert "test test ." in text_of(data.test_dataloader())
    fingerprint = data.calibration_fingerprint()
    alone = TextData(others["calibration"], nsamples=1, length=30).attach(tokenizer, 30)
    assert fingerprint == alone.calibration_fingerprint()


# --- calibration ---


@pytest.mark.parametrize("world", [2, 3])
def test_calibration_batches_are_the_same_for_any_number_of_processes(
    world: int, book: str, tokenizer: Tokenizer
) -> None:
    """Each process takes every n-th batch; together they are the batches of one process."""

    def share(rank: int, world: int) -> list[list[list[int]]]:
        data = TextData(book, nsamples=13, length=16, batch_size=4)
        in_trainer(data, module_of(tokenizer), rank, world).setup("fit")
        return ids_of(data.calibration_dataloader())

    alone = share(0, 1)
    assert [share(rank, world) for rank in range(world)] == [alone[r::world] for r in range(world)]


def test_a_process_without_calibration_is_refused_in_all(book: str, tokenizer: Tokenizer) -> None:
    """One that fails alone would leave the others waiting."""
    for rank in range(3):
        data = TextData(book, nsamples=8, length=16, batch_size=4)
        in_trainer(data, module_of(tokenizer), rank, 3).setup("fit")
        with pytest.raises(ValueError, match="2 batches, for 3 processes"):
            data.calibration_dataloader()


def test_the_fingerprint_is_that_of_the_tokens(book: str, tokenizer: Tokenizer) -> None:
    """Whatever the batches and the process; another seed gives another."""

    def fingerprint(rank: int = 0, world: int = 1, **config: Any) -> str:
        data = TextData(book, nsamples=6, length=16, **config)
        in_trainer(data, module_of(tokenizer), rank, world).setup("fit")
        return data.calibration_fingerprint()

    assert fingerprint() == fingerprint(batch_size=3) == fingerprint(rank=1, world=2)
    assert fingerprint(seed=1) != fingerprint()
    assert len(fingerprint()) == 64


def test_loaders_leave_the_global_random_state_alone(book: str, tokenizer: Tokenizer) -> None:
    """So that dropout does not depend on how often text was read."""
    data = TextData(book, nsamples=4, length=16).attach(tokenizer, 64)
    before = torch.get_rng_state()
    list(data.calibration_dataloader())
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.get_rng_state().equal(before)


# --- tokenizers ---


def test_without_a_tokenizer_the_error_says_what_to_call(book: str) -> None:
    """Before setup, and for a model that has none."""
    with pytest.raises(ValueError, match=r"no tokenizer.*attach\("):
        TextData(book).train_dataloader()
    with pytest.raises(ValueError, match="no tokenizer.*train_tokenizer"):
        in_trainer(TextData(book), module_of(None)).setup("fit")


def test_a_tokenizer_is_trained_once_and_given_to_the_module(book: str) -> None:
    """Also to the module of a later run, and the same in another process."""
    data, other = (TextData(book, train_tokenizer=290, length=16) for _ in range(2))
    first, second, elsewhere = (module_of(None) for _ in range(3))
    for module in (first, first, second):
        in_trainer(data, module).setup("fit")
    in_trainer(other, elsewhere).setup("test")
    assert first.tokenizer is second.tokenizer
    assert len(first.tokenizer) == 290
    assert first.tokenizer.get_vocab() == elsewhere.tokenizer.get_vocab()


def test_a_tokenizer_is_not_trained_on_chats(tmp_path: Path) -> None:
    """There is no template yet to render them with."""
    write_rows(tmp_path / "chats.jsonl", [chat(i) for i in range(40)])
    data = TextData(str(tmp_path / "chats.jsonl"), train_tokenizer=290)
    with pytest.raises(ValueError, match="train_tokenizer needs plain text"):
        in_trainer(data, module_of(None)).setup("fit")


def test_another_model_gets_windows_of_its_own_tokens(book: str, tokenizer: Tokenizer) -> None:
    """The windows of the model before are not used again."""
    data = TextData(book, nsamples=4, length=16)
    in_trainer(data, module_of(tokenizer)).setup("fit")
    before, same = data.calibration_fingerprint(), data.windows["train"]
    data.setup("fit")
    assert data.windows["train"] is same
    in_trainer(data, module_of(train_tokenizer([text(9)], 260))).setup("fit")
    assert data.windows["train"] is not same
    assert data.calibration_fingerprint() != before


# --- too little text ---


def test_too_little_text_is_refused_in_setup(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Before anything is pruned, and by the split that lacks it."""
    (tmp_path / "short.txt").write_text(text(100))
    data = TextData(str(tmp_path / "short.txt"), length=400)
    with pytest.raises(ValueError, match=r"validation text of .*short.txt' has \d+ tokens.*400"):
        in_trainer(data, module_of(tokenizer, 400)).setup("fit")


def test_fewer_windows_than_processes_cannot_be_trained_on(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """Rather than an epoch without a step."""
    for split in ("train", "validation"):
        (tmp_path / f"{split}.txt").write_text(text(2))
    data = TextData(str(tmp_path), length=16)
    in_trainer(data, module_of(tokenizer), rank=0, world=50).setup("fit")
    with pytest.raises(
        ValueError, match=r"train text of .* windows of 16 tokens, for 50 processes"
    ):
        data.train_dataloader()


def test_accumulated_batches_and_processes_take_the_same_steps(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """Of like lengths: four batches of one process are two batches of two."""
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    write_rows(tmp_path / "train.jsonl", [chat(i, 1 + i % 9) for i in range(40)])
    write_rows(tmp_path / "validation.jsonl", [chat(100 + i, 1) for i in range(2)])

    def steps(world: int, accumulated: int) -> list[list[list[int]]]:
        found: list[list[list[int]]] = []
        for rank in range(world):
            data = TextData(str(tmp_path), length=64, batch_size=2, group_by_length=True)
            in_trainer(data, module_of(tokenizer), rank, world, accumulated).setup("fit")
            for i, batch in enumerate(data.train_dataloader()):
                if rank == 0 and i % accumulated == 0:
                    found.append([])
                mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
                rows = zip(batch["input_ids"], mask, strict=True)
                found[i // accumulated] += [ids[kept].tolist() for ids, kept in rows]
        return [sorted(step) for step in found]

    assert steps(1, 4) == steps(2, 2) == steps(4, 1)


def test_the_other_name_of_length_is_understood(book: str, tokenizer: Any) -> None:
    """As in the codes of Wanda and SparseGPT; on a command line it holds against a file."""
    data = TextData(book, nsamples=4, length=32, seqlen=16).attach(tokenizer, 64)
    assert next(iter(data.calibration_dataloader()))["input_ids"].shape[1] == 16
