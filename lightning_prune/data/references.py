"""Reference sets: sequences of tokens that an attribution is the mean over.

What a model does on one set and not on another is due to what has relevance on the first alone.

Source: SparC3 (arXiv 2506.13727), which takes the difference of two.

Axes: T tokens of a sequence, B sequences of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self

from lightning_prune.checks import Configured
from lightning_prune.data import windows
from lightning_prune.data.rendering import Rendering, day_of
from lightning_prune.data.rows import BadRows
from lightning_prune.data.sources import read
from lightning_prune.data.text_data import TextData
from lightning_prune.tokens import check_known, known_pad_token

__all__ = ["Pairs", "References", "Windows"]


class References(Configured, ABC):
    """Sequences of tokens that an attribution is the mean over.

    Args:
        source: where they come from.
        nsamples: how many are drawn.
        length: tokens in a sequence, at most.
        seed: of what is drawn.
        batch_size: sequences in a batch.
    """

    source: str
    nsamples: int | None = None
    length: int = 128
    seed: int = 0
    batch_size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        counted = self.nsamples is None or self.nsamples > 0
        self.require("nsamples", counted, "it is 1 or more, or None for all")
        self.require("length", self.length > 1, "it is 2 or more")
        self.require("batch_size", self.batch_size > 0, "it is 1 or more")
        self._facts: dict[str, Any] = {}

    @abstractmethod
    def sequences(
        self, tokenizer: PreTrainedTokenizerBase, longest: int, vocabulary: int | None
    ) -> windows.Windows:
        """The sequences and their labels; `batches` says more of the arguments.

        Raises:
            FileNotFoundError: there is no such source.
            ValueError: it holds nothing that can be used.
        """

    def facts(self) -> dict[str, Any]:
        """What else there is to say of the sequences that were made last."""
        return {}

    def batches(
        self, tokenizer: PreTrainedTokenizerBase, longest: int, vocabulary: int | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """The sequences in batches of like lengths, the shortest first, padded on the right.

        Args:
            tokenizer: of the model.
            longest: the most tokens that the model can take.
            vocabulary: how many different ones it has; None: that is not known.

        Returns:
            `input_ids` and `labels` (B, T), and where there is padding an `attention_mask`. Labels
            are `IGNORED` at padding, and at what is not explained.

        Raises:
            FileNotFoundError: there is no such source.
            ValueError: it holds nothing that can be used, or tokens that the model does not have,
                or the model cannot take so many.
        """
        if self.length > longest:
            allowed = f"the model can take {longest} tokens; ask for {longest} at most"
            self.require("length", False, allowed)
        made = self.sequences(tokenizer, longest, vocabulary)
        if vocabulary is not None:
            check_known(made.highest, vocabulary, tokenizer, f"text of {self.source!r}")
        self._facts = {
            "sequences": len(made),
            "tokens": sum(len(window_T) for window_T in made.windows),
            "begin": made.begun_with(tokenizer),
            "sha256": made.fingerprint,
            **self.facts(),
        }
        pad, size = known_pad_token(tokenizer, vocabulary), self.batch_size
        order = sorted(range(len(made)), key=lambda i: len(made.windows[i]))
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        return [windows.collate([made[i] for i in part], pad) for part in parts]

    def describe(self) -> dict[str, Any]:
        """The class, its arguments, and of the batches that were made last: counts, and a hash."""
        return {"class": type(self).__name__, "arguments": self.arguments, **self._facts}

    def with_seed(self, seed: int) -> Self:
        """The same set, drawn with another seed; this one if nothing is drawn."""
        if self.nsamples is None:
            return self
        return type(self)(**self.arguments | {"seed": seed})


class Windows(References):
    """Windows of a text, drawn as `TextData` draws those of calibration: the same for one seed.

    Args:
        source: any that `TextData` takes; of one without splits, the part that is for training.
        nsamples: how many are drawn.
        length: tokens in a window.
        text_column: the column or key that holds the text.
    """

    nsamples: int | None = 128
    length: int = 512
    text_column: str = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("nsamples", self.nsamples is not None, "it is 1 or more")

    def sequences(
        self, tokenizer: PreTrainedTokenizerBase, longest: int, vocabulary: int | None
    ) -> windows.Windows:
        """Windows for calibration."""
        assert self.nsamples is not None
        data = TextData(
            self.source,
            nsamples=self.nsamples,
            length=self.length,
            seed=self.seed,
            text_column=self.text_column,
        )
        made = data.attach(tokenizer, longest, vocabulary).calibration_dataloader().dataset
        assert isinstance(made, windows.Windows)
        return made


class Pairs(References):
    """Prompts with their answers, or chats.

    With `places="all"` what is explained are all tokens of the answers; with "last" it is what
    follows the last of them.

    Rendered whole by the tokenizer's chat template, or by Alpaca's prompt if it has none, as
    `TextData` does; cut at `length`. Those without an answer within it are left out.

    Args:
        source: any that `TextData` takes, whose rows are chats. A source without splits is taken
            whole.
        nsamples: how many are drawn; None: all.
        length: tokens of a chat, at most.
        text_column: a column of turns that is called otherwise than usual.
        date: the day, such as 2026-11-27, that chat templates are told is today; None: today.
        bad_rows: "refuse" rows that hold no chat that can be rendered, or "leave_out" such rows.
    """

    length: int = 512
    text_column: str = "text"
    date: str | None = None
    bad_rows: BadRows = "refuse"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._day = day_of(self.date)

    def sequences(
        self, tokenizer: PreTrainedTokenizerBase, longest: int, vocabulary: int | None
    ) -> windows.Windows:
        """Chats, one a window."""
        documents = read(self.source, "train", self.text_column, True, self.bad_rows)
        if not documents.chats:
            raise ValueError(
                f"{self.source!r} holds texts, no prompts with answers and no chats; take Windows, "
                "or Prompts"
            )
        name, rendering = f"text of {self.source!r}", Rendering(day=self._day)
        if self.nsamples is None:
            return windows.consecutive_windows(documents, tokenizer, self.length, name, rendering)
        how = self.nsamples, self.length, self.seed, name, rendering
        return windows.random_windows(documents, tokenizer, *how)

    def facts(self) -> dict[str, Any]:
        """The day, which some templates write."""
        return {"date": self._day.isoformat()}
