"""TextData as others use it: configuration files, a real Trainer, losses, and reports."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from lightning_prune.data import TextData
from lightning_prune.data.tokenizer import train_tokenizer
from lightning_prune.data.windows import Windows, collate
from tests.data.words import text
from tests.tiny import tiny_model


class Memory(LightningModule):
    """One weight, and a memory of the batches it has seen."""

    max_position_embeddings = 16

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.tokenizer = tokenizer
        self.trained: list[list[list[int]]] = []
        self.evaluated: list[list[list[int]]] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.trained.append(batch["input_ids"].tolist())
        return self.weight * batch["input_ids"].float().mean()

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.evaluated.append(batch["input_ids"].tolist())

    test_step = validation_step

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return batch["input_ids"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **config: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    keeps = {"enable_checkpointing": "callbacks" in config}
    return Trainer(default_root_dir=folder, accelerator="cpu", **(quiet | keeps | config))


@pytest.fixture
def book(tmp_path: Path) -> str:
    """A folder whose train split has 13 windows of 16 letters, and the others 3."""
    generator = random.Random(0)
    for split, windows in (("train", 13), ("validation", 3), ("test", 3)):
        letters = (chr(generator.randint(97, 122)) for _ in range(windows * 16 + 2))
        (tmp_path / f"{split}.txt").write_text("".join(letters))
    return str(tmp_path)


# --- configuration files ---


def test_a_configuration_makes_it_from_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a class of its own arguments, and as a class that is named by its path."""
    # instantiate_classes is the name that every supported version knows.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    arguments = {"source": "wikitext2", "nsamples": 4, "length": 32}
    plain, named = jsonargparse.ArgumentParser(), jsonargparse.ArgumentParser()
    plain.add_class_arguments(TextData, "data")
    named.add_subclass_arguments(TextData, "data")
    path = {"class_path": "lightning_prune.data.TextData", "init_args": arguments}
    for parser, config in ((plain, arguments), (named, path)):
        made = parser.instantiate_classes(parser.parse_object({"data": config})).data
        assert isinstance(made, TextData)
        assert (made.source, made.nsamples, made.length, made.batch_size) == ("wikitext2", 4, 32, 8)


def test_every_argument_is_described_in_the_help() -> None:
    """From the docstring of the class."""
    parser = jsonargparse.ArgumentParser()
    names = parser.add_class_arguments(TextData, "data")
    help_of = {action.dest: action.help or "" for action in parser._actions}
    assert len(names) > 10
    assert [name for name in names if len(help_of[name].split("(type:")[0]) < 10] == []


# --- a real Trainer ---


def test_every_stage_gets_its_own_split(book: str, tmp_path: Path) -> None:
    """With a tokenizer that is trained on the way; one datamodule serves them all."""
    data = TextData(book, length=16, batch_size=2, train_tokenizer=257)
    module = Memory(None)
    trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0).fit(module, data)
    assert isinstance(module.tokenizer, PreTrainedTokenizerFast)
    assert [len(batch) for batch in module.trained] == [2] * 6 + [1]
    decode = module.tokenizer.decode
    validated = "".join(decode(row) for batch in module.evaluated for row in batch)
    assert validated == (tmp_path / "validation.txt").read_text()[:48]
    module.evaluated.clear()
    trainer(tmp_path).test(module, data, verbose=False)
    tested = [row for batch in module.evaluated for row in batch]
    assert "".join(map(decode, tested)) == (tmp_path / "test.txt").read_text()[:48]
    predicted = trainer(tmp_path).predict(module, data)
    assert torch.cat(predicted).tolist() == tested  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("step", [3, 10])
@pytest.mark.parametrize("limit", [5, 1.0])
def test_workers_and_limits_do_not_change_what_a_resumed_fit_sees(
    step: int, limit: float, book: str, tmp_path: Path
) -> None:
    """A worker fetches ahead, and an epoch may end before the text does."""

    def fit(folder: Path, checkpoint: Path | None = None) -> Memory:
        keep = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        module = Memory(train_tokenizer([], 257))
        data = TextData(book, length=16, batch_size=2, num_workers=1)
        limits = {"max_epochs": 3, "limit_train_batches": limit, "limit_val_batches": 0}
        trainer(folder, callbacks=[keep], **limits).fit(module, data, ckpt_path=checkpoint)
        return module

    whole = fit(tmp_path / "whole")
    resumed = fit(tmp_path / "resumed", tmp_path / "whole" / f"step={step}.ckpt")
    assert len(whole.trained) == 3 * (7 if limit == 1.0 else 5)
    assert resumed.trained == whole.trained[step:]


# --- losses and reports ---


def test_padding_and_fillers_do_not_change_the_loss() -> None:
    """The loss of a padded batch is the mean over the tokens of its own windows."""
    windows = Windows([torch.arange(3, 15), torch.arange(20, 25)])
    model = tiny_model("llama")
    alone = [model(input_ids=w[None], labels=w[None]).loss * (len(w) - 1) for w in windows.windows]
    expected = sum(alone) / sum(len(w) - 1 for w in windows.windows)
    batch = collate([windows[0], windows[1], windows[None]], pad=0)
    torch.testing.assert_close(model(**batch).loss, expected)


def test_a_report_can_read_all_validation_windows_again(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """From the loader's dataset, batch size and collate function, in order."""
    (tmp_path / "book.txt").write_text(text(500))
    data = TextData(str(tmp_path / "book.txt"), length=16, batch_size=4).attach(tokenizer, 64)
    loader = data.val_dataloader()
    again = DataLoader(loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn)
    batches = [batch["input_ids"].tolist() for batch in loader]
    assert [batch["input_ids"].tolist() for batch in again] == batches
    assert sum(map(len, batches)) == len(loader.dataset) > 4  # type: ignore[arg-type]
