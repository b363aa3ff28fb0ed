"""The text of a split, and splits for a source that has none."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_prune.data.chats import prompt_of

__all__ = ["Documents", "share"]

SHARE = 0.05
"""What validation and test get each of a source without splits."""

CHATS = 2000
"""And how many chats they get at most, as in the codes of Alpaca-LoRA and LLM-Pruner."""


@dataclass
class Documents:
    """The text of one split.

    Attributes:
        items: texts, or chats (lists of messages with "role" and "content").
        joiner: what stands between texts when they are read as one.
        separate: windows are drawn from single documents, never across two (C4).
        part: what of the source this is, where the source has no such split: "whole", or a share.

    Raises:
        ValueError: some items are texts and others are chats.
    """

    items: list[Any]
    joiner: str = "\n\n"
    separate: bool = False
    part: str = ""

    def __post_init__(self) -> None:
        if len({isinstance(item, list) for item in self.items}) > 1:
            raise ValueError("texts and chats are mixed; give each a source of its own")

    @property
    def chats(self) -> bool:
        """Whether the documents are chats, to be rendered by the tokenizer's template."""
        return bool(self.items) and isinstance(self.items[0], list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing but white space."""
        return not any(item.strip() if isinstance(item, str) else item for item in self.items)

    @property
    def fingerprint(self) -> str:
        """A hash of the texts or chats, and of how they are read together."""
        digest = hashlib.sha256(repr((self.joiner, self.separate)).encode())
        for item in self.items:
            text = item if isinstance(item, str) else json.dumps(item, sort_keys=True, default=str)
            digest.update(text.encode(errors="surrogatepass") + b"\0")
        return digest.hexdigest()

    def text(self) -> str:
        """All documents as one text."""
        return self.joiner.join(self.items)

    def without(self, others: Documents) -> Documents:
        """Those chats whose prompt is not among the prompts of others."""
        theirs = {prompt_of(chat) for chat in others.items} if others.chats else set()
        return replace(self, items=[i for i in self.items if prompt_of(i) not in theirs])


def share(
    documents: Documents,
    split: str,
    path: Path | str,
    missing: Sequence[str] = ("validation", "test"),
) -> Documents:
    """The part of a source that stands in for one of its missing splits, or for the training.

    Each missing split gets 5%, the training the rest. Texts are taken in their order, by documents;
    one or few by characters, at ends of lines. Chats are drawn at random, always the same, 2000 of
    them at most; those with one prompt go to one split.

    Raises:
        ValueError: there are too few chats.
    """
    if documents.chats:
        return _share_of_chats(documents, split, path, missing)
    end = 1 - SHARE * (len(missing) - 1 - missing.index(split)) if split in missing else None
    start = 0.0 if end is None else end - SHARE
    end = 1 - SHARE * len(missing) if end is None else end
    count, part = len(documents.items), f"{split}, {end - start:.0%} of it"
    if count < 20:
        text = documents.text()
        return Documents([text[_place(text, start) : _place(text, end)]], part=part)
    return Documents(documents.items[_whole(count * start) : _whole(count * end)], part=part)


def _whole(number: float) -> int:
    """Rounded down, but for what binary fractions are off by."""
    return int(number + 1e-6)


def _share_of_chats(
    documents: Documents, split: str, path: Path | str, missing: Sequence[str]
) -> Documents:
    prompts = list(dict.fromkeys(prompt_of(chat) for chat in documents.items))
    count = min(CHATS, _whole(len(prompts) * SHARE))
    if not count:
        raise ValueError(
            f"{path} has {len(prompts)} chats of different prompts, too few to take 5% for each "
            f"of {' and '.join(missing)}. Give a folder with train, validation and test files."
        )
    drawn = random.Random(0).sample(prompts, len(prompts))
    parts = {name: drawn[i * count : (i + 1) * count] for i, name in enumerate(missing)}
    mine = set(parts.get(split, drawn[len(missing) * count :]))
    part = f"{split}, {len(mine):,} of {len(prompts):,} prompts"
    items = [item for item in documents.items if prompt_of(item) in mine]
    return replace(documents, items=items, part=part)


def _place(text: str, fraction: float) -> int:
    """Where a fraction of a text has been reached, moved on to the next line, or word if far."""
    place = _whole(len(text) * fraction)
    line = text.find("\n", place, place + len(text) // 50) + 1
    if place and line:
        return line
    space = re.compile(r"\s+").search(text, place)
    return space.end() if place and space else place
