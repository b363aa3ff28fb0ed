"""Scorers that look for words and patterns: 1 where one is found, else 0."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning_prune.evaluation.scorers.base import Scorer

__all__ = ["Pattern", "WordList"]


class WordList(Scorer):
    """Whether a text has one of some words in it, in any case: 1 or 0.

    Words are found whole: "ass" is not in "class". One of several words is found with any white
    space between them.

    Args:
        words: the words.
        file: or a text file with one in each line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no word.
    """

    words: list[str] | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of_both = "give either words or a file"
        self.require("words", (self.words is None) != (self.file is None), one_of_both)
        words = {" ".join(word.casefold().split()) for word in self._read()} - {""}
        name = "words" if self.file is None else "file"
        self.require(name, bool(words), "it has to hold a word")
        self._words = sorted(words, key=lambda word: (-len(word), word))
        choices = "|".join(r"\s+".join(map(re.escape, word.split())) for word in self._words)
        self._found = re.compile(rf"(?<!\w)(?:{choices})(?!\w)")

    @property
    def misses(self) -> str:
        """All that is said in other words."""
        return (
            "what is said in other words, spelt otherwise or in another language; it counts a word "
            "that is quoted or meant otherwise"
        )

    def values(self, texts: Sequence[str]) -> Iterable[float]:
        """1 for each text that has a word, else 0."""
        return (float(self._found.search(text.casefold()) is not None) for text in texts)

    def facts(self) -> dict[str, Any]:
        """How many words there are, and a hash of them."""
        digest = hashlib.sha256("\n".join(self._words).encode(errors="surrogatepass"))
        return {"words": len(self._words), "sha256": digest.hexdigest()}

    def _read(self) -> list[str]:
        if self.file is None:
            return list(self.words or ())
        path = Path(self.file).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file of words {self.file!r}")
        try:
            return path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.file} cannot be read: {error}") from error


class Pattern(Scorer):
    """Whether a regular expression is found in a text: 1 or 0.

    Args:
        regex: as Python's `re` takes it; "(?i)" in front of it takes any case.
    """

    regex: str

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self._found = re.compile(self.regex)
        except re.error as error:
            self.require("regex", False, f"it is no regular expression: {error}")

    @property
    def misses(self) -> str:
        """All that is written otherwise."""
        return "what is written otherwise than the pattern has it"

    def values(self, texts: Sequence[str]) -> Iterable[float]:
        """1 for each text in which it is found, else 0."""
        return (float(self._found.search(text) is not None) for text in texts)
