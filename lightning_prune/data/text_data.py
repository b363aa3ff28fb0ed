"""Calibration, training and evaluation text as a LightningDataModule."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from lightning_prune.data.documents import Documents
from lightning_prune.data.loaders import ResumableLoader, ShardSampler
from lightning_prune.data.sources import read
from lightning_prune.data.tokenizer import train_tokenizer
from lightning_prune.data.windows import Windows, blocks, collate, random_windows

__all__ = ["TextData"]

LONGEST_DEFAULT = 2048

SEEN = ("calibration", "train")
"""What a model is made with; the other uses measure it."""


class TextData(LightningDataModule):
    """Windows of text for calibration, training, validation and test.

    A source is a name ("wikitext2", "wikitext103", "ptb", "c4", "builtin": the help texts that come
    with Python), a local file (.txt, .txt.gz, .json, .jsonl, .jsonl.gz, .parquet), a folder with
    train, validation and test files or one saved by `datasets`, or a dataset on the hub. A source
    without validation text gives the first 90% for training, then 5% for validation and 5% for
    test.

    Rows with `messages`, or with a prompt and its answer (`instruction`, `input`, `output`;
    `prompt`, `response`), are chats, rendered by the tokenizer's template, or by Alpaca's if it has
    none: each is a window, cut at seqlen and padded to the longest of its batch. Where they have no
    splits, validation and test get 5% each, 2000 at most, drawn at random. No prompt of validation
    and test is trained on or calibrated with.

    Calibration takes `nsamples` random windows, always the same for one seed. Training takes the
    whole split in consecutive windows, shuffled every epoch; validation and test take them in
    order. Tokens are cached in $LIGHTNING_PRUNE_CACHE, else ~/.cache/lightning_prune.

    Args:
        source: where text comes from.
        calibration: another source for calibration, whose train split is used.
        validation: another source for validation.
        test: another source for test.
        nsamples: number of calibration windows.
        seqlen: tokens in a window; null: what the model can take, 2048 at most.
        batch_size: windows in a batch, in each process.
        seed: of the calibration windows and of the order of training.
        text_column: the column or key that holds the text.
        train_tokenizer: train a new tokenizer of that many tokens on the training text, for a
            model that is trained from random weights.
        num_workers: processes that load training batches.
        train_on_prompt: of chats, learn and measure the prompts too, not the answers alone.
        group_by_length: put chats of like lengths into one training batch: less padding.
    """

    def __init__(
        self,
        source: str = "builtin",
        *,
        calibration: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        nsamples: int = 128,
        seqlen: int | None = None,
        batch_size: int = 8,
        seed: int = 0,
        text_column: str = "text",
        train_tokenizer: int | None = None,
        num_workers: int = 0,
        train_on_prompt: bool = False,
        group_by_length: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("nsamples", nsamples), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name}={value}; at least 1 is needed")
        if seqlen is not None and seqlen < 2:
            raise ValueError(f"seqlen={seqlen}; a window needs two tokens to predict one")
        self.source = source
        self.sources = {
            "calibration": calibration or source,
            "train": source,
            "validation": validation or source,
            "test": test or source,
        }
        self.nsamples, self.seqlen, self.batch_size = nsamples, seqlen, batch_size
        self.seed, self.text_column = seed, text_column
        self.train_tokenizer, self.num_workers = train_tokenizer, num_workers
        self.train_on_prompt, self.group_by_length = train_on_prompt, group_by_length
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.length = 0
        self.windows: dict[str, Windows] = {}
        self._parts: dict[str, str] = {}

    def attach(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TextData:
        """Use a tokenizer, and windows of `max_length` tokens at most; `setup` does this too.

        Raises:
            ValueError: seqlen is more than max_length.
        """
        length = min(LONGEST_DEFAULT, max_length) if self.seqlen is None else self.seqlen
        if length > max_length:
            raise ValueError(
                f"seqlen={length} is more than the {max_length} tokens that the model can take; "
                f"ask for {max_length} at most"
            )
        if self.tokenizer is not tokenizer or self.length != length:
            self.windows.clear()
        self.tokenizer, self.length = tokenizer, length
        return self

    def setup(self, stage: str) -> None:
        """Take the tokenizer from the Trainer's module; make the windows that a stage needs.

        The module has a `tokenizer` (set here if a new one is trained) and says how many tokens it
        can take in `max_position_embeddings`.

        Raises:
            ValueError: the module has no tokenizer, or a text is too short.
        """
        module: Any = self.trainer.lightning_module if self.trainer is not None else None
        if module is not None and self.train_tokenizer is not None:
            module.tokenizer = self._trained_tokenizer
        if getattr(module, "tokenizer", None) is not None:
            self.attach(module.tokenizer, module.max_position_embeddings)
        needed = {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",))
        trains = self.trainer is None or self.trainer.limit_train_batches != 0
        for use in needed:
            if use != "train" or trains:
                self._windows(use)

    def calibration_dataloader(self) -> DataLoader[Any]:
        """This process's share of the calibration batches.

        The batches are the same whatever the number of processes; each takes every n-th of them.

        Raises:
            ValueError: there are fewer batches than processes, or the text is too short.
        """
        rank, world = self._place()
        windows = self._windows("calibration")
        order = list(range(len(windows)))
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        if len(batches) < world:
            raise ValueError(
                f"{len(windows)} calibration windows in batches of {self.batch_size} are "
                f"{len(batches)} batches, for {world} processes. Give each at least one: more "
                "nsamples, or a smaller batch_size."
            )
        return DataLoader(
            windows,
            batch_sampler=batches[rank::world],
            collate_fn=self._collate(),
            generator=torch.Generator(),
        )

    def described(self, use: str, most: int | None = None) -> str:
        """What the figures of a use are of: text, split, number of windows and their length.

        Args:
            use: "validation" or "test".
            most: so many windows are looked at, if there are more; None: all.
        """
        windows = self._windows(use)
        count = len(windows) if most is None else min(most, len(windows))
        at_most = "" if isinstance(windows.windows, torch.Tensor) else " at most"
        return (
            f"{self.sources[use]} ({self._parts[use]}): {count:,} windows of {self.length:,} "
            f"tokens{at_most}"
        )

    def calibration_fingerprint(self) -> str:
        """A hash of all calibration tokens and labels, the same in every process."""
        digest, windows = hashlib.sha256(), self._windows("calibration")
        for window in windows.windows:
            digest.update(window.numpy().tobytes() + b"|")
        for labels in windows.labels if windows.labels is not windows.windows else ():
            digest.update(labels.numpy().tobytes() + b"|")
        return digest.hexdigest()

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled windows of the training text."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Windows of the validation text, in order."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[Any]:
        """Windows of the test text, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Windows of the test text, in order."""
        return self._loader("test")

    def _read(self, use: str) -> Documents:
        split = "train" if use in SEEN else use
        documents = read(self.sources[use], split, self.text_column)
        if use in SEEN and documents.chats:
            for other in ("validation", "test"):
                with suppress(FileNotFoundError, ValueError):  # what is not there cannot leak
                    documents = documents.without(self._read(other))
            if not documents.items:
                raise ValueError(
                    f"every prompt of the {use} text of {self.sources[use]!r} is in the validation "
                    "or test text too, and nothing is left. Give other text for one of them."
                )
        return documents

    @cached_property
    def _trained_tokenizer(self) -> PreTrainedTokenizerBase:
        assert self.train_tokenizer is not None
        documents = self._read("train")
        if documents.chats:
            raise ValueError("train_tokenizer needs plain text to train on; the source has chats")
        return train_tokenizer(documents.items, self.train_tokenizer)

    def _windows(self, use: str) -> Windows:
        if self.tokenizer is None:
            raise ValueError(
                "there is no tokenizer. Take a model whose folder has one, set train_tokenizer for "
                "a model that starts from random weights, or call attach(tokenizer, max_length)."
            )
        if use not in self.windows:
            documents, name = self._read(use), f"{use} text of {self.sources[use]!r}"
            self._parts[use] = documents.part or use
            how: Any = {"name": name, "train_on_prompt": self.train_on_prompt}
            given = documents, self.tokenizer
            self.windows[use] = (
                random_windows(*given, self.nsamples, self.length, self.seed, **how)
                if use == "calibration"
                else blocks(*given, self.length, **how)
            )
        return self.windows[use]

    def _loader(self, use: str) -> DataLoader[Any]:
        windows, training = self._windows(use), use == "train"
        rank, world = self._place()
        if training and len(windows) < world:
            raise ValueError(
                f"the train text of {self.source!r} has {len(windows)} windows of {self.length} "
                f"tokens, for {world} processes. Give more text, or a smaller seqlen."
            )
        alike = self._windows_in_a_step(world) if self.group_by_length else None
        loader = (ResumableLoader if training else DataLoader)(
            windows,
            batch_size=self.batch_size,
            sampler=ShardSampler(windows, rank, world, training, self.seed, alike),
            collate_fn=self._collate(),
            num_workers=self.num_workers if training else 0,
            generator=torch.Generator(),  # one of its own: the global random state is left alone
        )
        if isinstance(loader, ResumableLoader):
            loader.processes = world
            if self.trainer is not None:
                progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
                loader.finished = lambda: progress.current.processed
        return loader

    def _windows_in_a_step(self, world: int) -> int:
        accumulated = self.trainer.accumulate_grad_batches if self.trainer is not None else 1
        return self.batch_size * world * accumulated

    def _collate(self) -> partial[dict[str, torch.Tensor]]:
        assert self.tokenizer is not None
        # What stands at padding is masked and ignored; it only has to be a token.
        pad = self.tokenizer.pad_token_id
        return partial(collate, pad=0 if pad is None else pad)

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
