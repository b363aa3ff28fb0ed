"""Texts that a model is judged by: read, cut into windows, and named after what they are.

Axes: T tokens of a window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from lightning_prune.data.documents import Documents
from lightning_prune.data.rendering import Rendering
from lightning_prune.data.rows import BadRows
from lightning_prune.data.sources import read
from lightning_prune.data.text_data import LONGEST_DEFAULT
from lightning_prune.data.windows import Windows, collate, consecutive_windows
from lightning_prune.tokens import check_known, known_pad_token

__all__ = ["JudgedText", "check_lengths", "judged_documents", "window_length"]


@dataclass(frozen=True)
class JudgedText:
    """A text in windows of one tokenizer's tokens.

    Attributes:
        source: where it comes from.
        part: what of its source it is: a split, or "whole", or a share.
        length: tokens in a window; chats may be shorter.
        windows: the windows.
        pad: a token that stands where shorter windows are padded.
        begin: what each window begins with, as the tokenizer writes it; empty: a token of the text.
    """

    source: str
    part: str
    length: int
    windows: Windows
    pad: int
    begin: str = ""

    @classmethod
    def cut(
        cls,
        documents: Documents,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        source: str,
        split: str,
        most: int | None = None,
        rendering: Rendering | None = None,
        vocabulary: int | None = None,
    ) -> JudgedText:
        """Cut documents into consecutive windows.

        Args:
            documents: of `judged_documents`.
            tokenizer: of the model that is judged.
            length: tokens in a window.
            source: where the documents come from.
            split: as which they were read.
            most: take no more than the first so many windows; None: all.
            rendering: how they become tokens.
            vocabulary: how many tokens the model has; None: that is not known.

        Raises:
            ValueError: there is not one window, or one holds tokens that the model does not have.
        """
        name = f"{split} text of {source!r}"
        windows = consecutive_windows(documents, tokenizer, length, name, rendering)
        if most is not None:
            same = windows.labels is windows.windows
            labels = None if same else list(windows.labels[:most])
            windows = Windows(windows.windows[:most], labels, windows.begin)
        if vocabulary is not None:
            check_known(windows.highest, vocabulary, tokenizer, name)
        part, pad = documents.part or split, known_pad_token(tokenizer, vocabulary)
        return cls(source, part, length, windows, pad, windows.begun_with(tokenizer))

    @property
    def fingerprint(self) -> str:
        """A short hash of the token ids of all windows."""
        digest = hashlib.sha256()
        for window_T in self.windows.windows:
            digest.update(window_T.numpy().tobytes() + b"|")
        return digest.hexdigest()[:16]

    def batches(self, size: int) -> list[dict[str, torch.Tensor]]:
        """All windows, so many at once, in their order."""
        together = partial(collate, pad=self.pad)
        generator = torch.Generator()  # of its own: the global random state is left alone
        return list(DataLoader(self.windows, size, collate_fn=together, generator=generator))


def judged_documents(
    source: str,
    split: str,
    column: str = "text",
    apart: Collection[str] = (),
    bad_rows: BadRows = "refuse",
) -> Documents:
    """The text of a source to judge a model by.

    A file, and whatever else has no splits, is taken whole, as nothing is trained on here. Of those
    sources that the model is made with, it is the share that `TextData` keeps apart for the split.

    Args:
        source: as `TextData` takes it.
        split: "test" or "validation".
        column: the column or key that holds the text.
        apart: the sources that the model is made with.
        bad_rows: whether rows that hold neither a text nor a chat are an error or left out.

    Raises:
        FileNotFoundError: there is no such text.
        ValueError: it holds none, or cannot be understood.
    """
    theirs = {Path(name).expanduser().resolve() for name in apart}
    whole = Path(source).expanduser().resolve() not in theirs
    return read(source, split, column, whole, bad_rows)


def check_lengths(lengths: Any) -> None:
    """Refuse what are no lengths of windows.

    Raises:
        ValueError: neither None nor a list of whole numbers of 2 at least.
    """
    listed = isinstance(lengths, Sequence) and not isinstance(lengths, str) and len(lengths) > 0
    if lengths is not None and not (listed and all(type(n) is int and n > 1 for n in lengths)):
        raise ValueError(
            f"lengths={lengths!r} is not allowed; give a list of whole numbers, 2 at least, such "
            "as [128, 2048], or None for what the model can take"
        )


def window_length(asked: int | None, longest: int) -> int:
    """Tokens in a window; without a wish what the model can take, 2048 at most.

    Raises:
        ValueError: the model cannot take so many.
    """
    if asked is not None and asked > longest:
        raise ValueError(
            f"lengths={asked} is more than the {longest} tokens that the model can take; ask for "
            f"{longest} at most"
        )
    return min(LONGEST_DEFAULT, longest) if asked is None else asked
