"""Calibration, training and evaluation text as a LightningDataModule."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from lightning_prune import distributed
from lightning_prune.checks import known_arguments
from lightning_prune.data.loaders import Collate, calibration_loader, check_amounts
from lightning_prune.data.rendering import day_of
from lightning_prune.data.rows import BadRows
from lightning_prune.data.splits import Splits
from lightning_prune.data.texts import SEEN, Texts
from lightning_prune.data.tokenizer import train_tokenizer
from lightning_prune.data.windows import collate
from lightning_prune.tokens import known_pad_token

__all__ = ["LONGEST_DEFAULT", "SEEN", "TextData"]

LONGEST_DEFAULT = 2048


class TextData(Texts, Splits):
    """Windows of text for calibration, training, validation and test.

    A source is a name ("wikitext2", "wikitext103", "ptb", "c4", "builtin": the help texts that come
    with Python), a local file (.txt, .txt.gz, .json, .jsonl, .jsonl.gz, .parquet), a folder with
    train, validation and test files or one saved by `datasets`, or a dataset on the hub. A source
    without validation text gives the first 90% for training, then 5% for validation and 5% for
    test.

    Rows with turns (`messages`, `conversations`), or with a prompt and its answer (`instruction`,
    `input`, `output`; `prompt`, `response`; and more, see `data.layouts`), are chats, rendered by
    the tokenizer's template, or by Alpaca's if it has none: each is a window, cut at `length` and
    padded to the longest of its batch. Where they have no splits, validation and test get 5% each,
    2000 at most, drawn at random. No prompt of validation and test is trained on or calibrated
    with.

    Calibration takes `nsamples` random windows, always the same for one seed. Training takes the
    whole split in consecutive windows, shuffled every epoch; validation and test take them in
    order. A window of n tokens predicts n - 1: the first is the tokenizer's begin token, if it puts
    one in front of every text, else a token of the text. Tokens are cached in
    $LIGHTNING_PRUNE_CACHE, else ~/.cache/lightning_prune.

    Args:
        source: where text comes from.
        calibration: another source for calibration, whose train split is used.
        validation: another source for validation.
        test: another source for test.
        nsamples: number of calibration windows.
        length: tokens in a window; None: what the model can take, 2048 at most.
        batch_size: windows in a batch, in each process.
        seed: of the calibration windows and of the order of training.
        text_column: the column or key that holds the text.
        train_tokenizer: train a new tokenizer of that many tokens on the training text, for a
            model that is trained from random weights.
        num_workers: processes that load training batches.
        train_on_prompt: of chats, learn and measure the prompts too, not the answers alone.
        group_by_length: put chats of like lengths into one training batch: less padding.
        begin_token: what windows of text begin with. None: as the tokenizer begins a text; True:
            with the begin token, also if the tokenizer puts none there; False: in the middle of the
            text, as published perplexities often have it. Chat templates begin chats themselves.
        date: the day, such as 2026-11-27, that chat templates are told is today; None: today, and
            when a run is resumed the day on which it began.
        bad_rows: "refuse" rows that hold no text, or no chat that can be rendered, or "leave_out"
            such rows, with a line that counts them.
        seqlen: what the codes of Wanda and SparseGPT call `length`; where it is given, it holds.
    """

    @known_arguments
    def __init__(
        self,
        source: str = "builtin",
        *,
        calibration: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        nsamples: int = 128,
        length: int | None = None,
        batch_size: int = 8,
        seed: int = 0,
        text_column: str = "text",
        train_tokenizer: int | None = None,
        num_workers: int = 0,
        train_on_prompt: bool = False,
        group_by_length: bool = False,
        begin_token: bool | None = None,
        date: str | None = None,
        bad_rows: BadRows = "refuse",
        seqlen: int | None = None,
    ) -> None:
        Splits.__init__(self)
        check_amounts(nsamples, batch_size, num_workers)
        length = length if seqlen is None else seqlen
        if length is not None and length < 2:
            raise ValueError(f"length={length}; a window needs two tokens to predict one")
        sources = {"calibration": calibration, "validation": validation, "test": test}
        Texts.__init__(
            self,
            {"train": source, **{use: other or source for use, other in sources.items()}},
            nsamples=nsamples,
            seed=seed,
            text_column=text_column,
            train_on_prompt=train_on_prompt,
            begin_token=begin_token,
            date=date,
            bad_rows=bad_rows,
        )
        self.source, self.batch_size = source, batch_size
        self.asked_length, self.length = length, length or 0
        self.train_tokenizer, self.num_workers = train_tokenizer, num_workers
        self.group_by_length = group_by_length

    def attach(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        vocabulary: int | None = None,
    ) -> TextData:
        """Use a tokenizer, and windows of `max_length` tokens at most; `setup` does this too.

        Args:
            tokenizer: of the model.
            max_length: the most tokens that the model can take.
            vocabulary: how many tokens it has embeddings for; text with others is refused. None:
                that is not known.

        Raises:
            ValueError: the length asked for is more than max_length.
        """
        asked = self.asked_length
        length = min(LONGEST_DEFAULT, max_length) if asked is None else asked
        if length > max_length:
            raise ValueError(
                f"length={length} is more than the {max_length} tokens that the model can take; "
                f"ask for {max_length} at most"
            )
        self._use(tokenizer, length, vocabulary)
        return self

    def setup(self, stage: str) -> None:
        """Take the tokenizer from the Trainer's module; make the windows that a stage needs.

        The module has a `tokenizer` (set here if a new one is trained) and says how many tokens it
        can take in `max_position_embeddings`, and how many it knows in `vocabulary`.

        Raises:
            ValueError: the module has no tokenizer, or another model's; or a text is too short.
        """
        module: Any = self.trainer.lightning_module if self.trainer is not None else None
        if module is not None and self.train_tokenizer is not None:
            module.tokenizer = self._trained_tokenizer
        if getattr(module, "tokenizer", None) is not None:
            known: int | None = getattr(module, "vocabulary", None)
            self.attach(module.tokenizer, module.max_position_embeddings, known)
        self.day = distributed.once(lambda: self.day)  # it may be past midnight in another process
        for use in self._needed(stage):
            self._windows(use)

    def calibration_dataloader(self) -> DataLoader[Any]:
        """This process's share of the calibration batches.

        The batches are the same whatever the number of processes; each takes every n-th of them.

        Raises:
            ValueError: there are fewer batches than processes, or the text is too short.
        """
        windows = self._windows("calibration")
        return calibration_loader(windows, self.batch_size, self._collate, *self._place())

    def state_dict(self) -> dict[str, Any]:
        """The date, as part of a checkpoint, if chats were told it."""
        return {"date": self.dated} if self.dated else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the date of the checkpoint, unless one is asked for."""
        if self.date is None and "date" in state_dict:
            self._go_back_to(day_of(state_dict["date"]))

    @cached_property
    def _trained_tokenizer(self) -> PreTrainedTokenizerBase:
        assert self.train_tokenizer is not None
        documents = self._read("train")
        if documents.chats:
            raise ValueError("train_tokenizer needs plain text to train on; the source has chats")
        return train_tokenizer(documents.items, self.train_tokenizer)

    def _loader(self, use: str) -> DataLoader[Any]:
        windows, training = self._windows(use), use == "train"
        _, world = self._place()
        if training and len(windows) < world:
            raise ValueError(
                f"the train text of {self.source!r} has {len(windows)} windows of {self.length} "
                f"tokens, for {world} processes. Give more text, or a lower length."
            )
        alike = self._windows_in_a_step(world) if self.group_by_length else None
        return self._shared(windows, self._collate, training, alike)

    def _windows_in_a_step(self, world: int) -> int:
        accumulated = self.trainer.accumulate_grad_batches if self.trainer is not None else 1
        return self.batch_size * world * accumulated

    @property
    def _collate(self) -> Collate:
        return partial(collate, pad=known_pad_token(self.tokenizer, self.vocabulary))
