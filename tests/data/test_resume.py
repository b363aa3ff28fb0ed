"""A fit that is interrupted and resumed sees the batches of one that is not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from transformers import PreTrainedTokenizerFast

from lightning_prune.data import TextData
from lightning_prune.data.tokenizer import train_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

EPOCH = 7  # batches: six of two windows, one of one
Seen = list[tuple[int, int, list[list[int]]]]


class Module(LightningModule):
    """One weight, and a memory of the batches it was trained on."""

    max_position_embeddings = 16

    def __init__(self, tokenizer: PreTrainedTokenizerFast, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.tokenizer, self.fail_at = tokenizer, fail_at
        self.seen: Seen = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if self.global_step == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append((self.current_epoch, batch_idx, batch["input_ids"].tolist()))
        return self.weight * batch["input_ids"].float().mean()

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.weight.abs())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def book(tmp_path: Path) -> str:
    """A folder whose train split has 13 windows of 16 letters."""
    generator = random.Random(0)
    for split, count in (("train", 13 * 16 + 3), ("validation", 40)):
        numbers = [chr(generator.randint(97, 122)) for _ in range(count)]
        (tmp_path / f"{split}.txt").write_text("".join(numbers))
    return str(tmp_path)


@pytest.fixture
def short_chats(tmp_path: Path) -> str:
    """A folder whose train split has 13 chats of 4 to 16 bytes."""
    for split, count in (("train", 13), ("validation", 2)):
        rows = [{"prompt": f"{split[0]}{i}", "response": "x" * (2 + i)} for i in range(count)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    return str(tmp_path)


@pytest.fixture
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte."""
    return train_tokenizer([], 257)


def fit(book: str, module: Module, folder: Path, *callbacks: Callback, **config: Any) -> Trainer:
    checkpoint, by_length = config.pop("ckpt_path", None), config.pop("by_length", False)
    trainer = Trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **config,
    )
    data = TextData(book, length=16, batch_size=2, seed=5, group_by_length=by_length)
    trainer.fit(module, data, ckpt_path=checkpoint)
    return trainer


def test_a_resumed_fit_of_chats_of_like_lengths_sees_the_same_batches(
    short_chats: str, byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """In the middle of an epoch; the longest chats are padded to no others."""
    byte_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    whole, resumed = Module(byte_tokenizer), Module(byte_tokenizer)
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", every_n_train_steps=1, save_top_k=-1)
    length = {"max_epochs": 2, "by_length": True}
    fit(short_chats, whole, tmp_path, keep, **length)
    checkpoint = str(tmp_path / "kept" / "step=4.ckpt")
    fit(short_chats, resumed, tmp_path, ckpt_path=checkpoint, **length)
    assert len(whole.seen) == 2 * EPOCH
    assert resumed.seen == whole.seen[4:]
    assert len({len(ids[0]) for _, _, ids in whole.seen[:EPOCH]}) > 4


LENGTHS = [{"max_epochs": 3}, {"max_steps": 3 * EPOCH, "max_epochs": -1}]


@pytest.mark.parametrize("length", LENGTHS, ids=["epochs", "steps"])
@pytest.mark.parametrize("step", [1, 4, EPOCH, EPOCH + 1, EPOCH + 5])
def test_a_resumed_fit_sees_the_batches_of_an_uninterrupted_one(
    step: int,
    length: dict[str, int],
    book: str,
    byte_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    """From checkpoints in the first epoch, at its end, and in the second epoch."""
    whole = Module(byte_tokenizer)
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", every_n_train_steps=1, save_top_k=-1)
    fit(book, whole, tmp_path, keep, **length)
    resumed = Module(byte_tokenizer)
    checkpoint = str(tmp_path / "kept" / f"step={step}.ckpt")
    fit(book, resumed, tmp_path, ckpt_path=checkpoint, **length)
    assert len(whole.seen) == 3 * EPOCH
    assert resumed.seen == whole.seen[step:]
    torch.testing.assert_close(resumed.weight, whole.weight)


@pytest.mark.parametrize("length", LENGTHS, ids=["epochs", "steps"])
@pytest.mark.parametrize(
    "saves", [{"save_on_train_epoch_end": True}, {"save_on_train_epoch_end": False}]
)
def test_a_checkpoint_at_the_end_of_an_epoch_starts_the_next(
    saves: dict[str, Any],
    length: dict[str, int],
    book: str,
    byte_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    """Whether it is written after training or after validation."""
    whole = Module(byte_tokenizer)
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", save_top_k=-1, **saves)
    fit(book, whole, tmp_path, keep, **length)
    resumed = Module(byte_tokenizer)
    checkpoint = str(tmp_path / "kept" / f"step={EPOCH}.ckpt")
    fit(book, resumed, tmp_path, ckpt_path=checkpoint, **length)
    assert resumed.seen == whole.seen[EPOCH:]


@pytest.mark.parametrize("fail_at", [2, EPOCH + 2])
def test_a_batch_that_was_not_finished_comes_again(
    fail_at: int, book: str, byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """A checkpoint that an interruption writes in the middle of a step loses no batch."""
    whole, stopped, resumed = (Module(byte_tokenizer) for _ in range(3))
    fit(book, whole, tmp_path, max_epochs=3)
    stopped.fail_at = fail_at
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", save_on_exception=True)
    with pytest.raises(SystemExit):
        fit(book, stopped, tmp_path, keep, max_epochs=3)
    checkpoints = sorted((tmp_path / "kept").glob(f"*step={fail_at}*.ckpt"))
    fit(book, resumed, tmp_path, ckpt_path=str(checkpoints[0]), max_epochs=3)
    assert stopped.seen + resumed.seen == whole.seen


def test_overfitting_on_a_few_batches_still_works(
    book: str, byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Lightning then puts a sampler of its own into the loader."""
    module = Module(byte_tokenizer)
    with pytest.warns(UserWarning, match="overfit"):
        fit(book, module, tmp_path, max_epochs=2, overfit_batches=2)
    assert [seen[2] for seen in module.seen[:2]] == [seen[2] for seen in module.seen[2:]]
