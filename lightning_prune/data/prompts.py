"""Prompts as a reference set: texts of a file of records, chosen by a score.

Axes: T tokens of a prompt.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lightning_prune.data.records import Record, read_records
from lightning_prune.data.references import References
from lightning_prune.data.windows import Windows
from lightning_prune.tokens import begin_tokens

__all__ = ["Prompts"]


@dataclass
class _Counts:
    """What became of the records of a file."""

    records: int = 0
    without_score: int = 0
    passed: int = 0
    shortened: int = 0


class Prompts(References):
    """Texts of a file of records, those with the scores that are asked for.

    Each is a sequence, begun as the tokenizer begins a text. What is explained is the answer behind
    its last token, so that a prompt of more than `length` tokens keeps its end, behind the begin
    token. The schema of RealToxicityPrompts is read as it is:

        Prompts(source="prompts.jsonl", score="prompt.toxicity", above=0.9, nsamples=64)

    Args:
        source: a file of rows (.jsonl, .jsonl.gz, .json, .parquet), or of plain text (.txt,
            .txt.gz) with a prompt in each line; or the prompts themselves, as a list.
        text: the field that holds the prompt, a dot between names: "prompt.text" of {"prompt":
            {"text": …}}. Several are joined as they are: a prompt and how it goes on.
        score: the field that holds the score, by which `above` and `below` choose; records whose
            score is null are left out, and counted. None: all records are taken.
        above: the least score.
        below: the highest score.
        nsamples: how many are drawn of those; None: all.
        length: tokens of a prompt, at most.
    """

    source: list[str] | str  # type: ignore[assignment]
    text: list[str] | str = "prompt.text"
    score: str | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        fields = [self.text] if isinstance(self.text, str) else list(self.text)
        named = bool(fields) and all(isinstance(field, str) and field for field in fields)
        self.require("text", named, "it is the name of a field, or a list of names")
        limits = [limit for limit in (self.above, self.below) if limit is not None]
        if self.score is None and limits:
            self.require("score", False, "name the field that above and below look at")
        if self.score is not None and not limits:
            self.require("score", False, "say above or below which score: above=…, below=…")
        if limits == [self.above, self.below]:
            self.require("below", limits[0] <= limits[1], f"it is above={self.above} or more")
        self._counts = _Counts()

    def texts(self) -> list[str]:
        """The prompts that are drawn, as they stand in the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it cannot be read, a field is missing or holds something else, a text is
                empty, or too few have such a score.
        """
        records = self._records()
        passed = [record.text for record in records if self._passes(record)]
        lacking = sum(record.score is None for record in records) if self.score is not None else 0
        self._counts = _Counts(len(records), lacking, len(passed))
        if not passed:
            raise ValueError(self._none_passes(records))
        if self.nsamples is None:
            return passed
        if self.nsamples > len(passed):
            raise ValueError(
                f"nsamples={self.nsamples} prompts are asked for, and {self.source!r} has "
                f"{len(passed):,} among {len(records):,} records{self._asked()}; ask for "
                f"{len(passed)} at most, or for other scores"
            )
        return random.Random(self.seed).sample(passed, self.nsamples)

    def sequences(
        self, tokenizer: PreTrainedTokenizerBase, longest: int, vocabulary: int | None
    ) -> Windows:
        """One a prompt."""
        begin = list(begin_tokens(tokenizer))
        room = self.length - len(begin)
        if room < 1:
            allowed = f"{len(begin)} begin tokens leave no room for a prompt; give more"
            self.require("length", False, allowed)
        ids_of = tokenizer(self.texts(), add_special_tokens=False, verbose=False)["input_ids"]
        if not all(ids_of):
            raise ValueError(
                f"a prompt of {self.source!r} has characters but no token of this tokenizer; take "
                "it out"
            )
        self._counts.shortened = sum(len(ids) > room for ids in ids_of)
        return Windows([torch.tensor(begin + ids[-room:]) for ids in ids_of], begin=tuple(begin))

    def facts(self) -> dict[str, Any]:
        """How many records there were, and how many were left out or shortened."""
        return dict(vars(self._counts))

    def _records(self) -> list[Record]:
        if isinstance(self.source, str):
            return read_records(self.source, self.text, self.score)
        self.require("score", self.score is None, "prompts that are given as a list have none")
        empty = not self.source or not all(text.strip() for text in self.source)
        self.require("source", not empty, "it is a file, or a list of prompts, none of them empty")
        return [Record(text) for text in self.source]

    def _passes(self, record: Record) -> bool:
        if self.score is None:
            return True
        return (
            record.score is not None
            and (self.above is None or record.score >= self.above)
            and (self.below is None or record.score <= self.below)
        )

    def _asked(self) -> str:
        """Which scores are asked for, as part of a sentence; empty if any are."""
        limits = {"at least": self.above, "at most": self.below}
        said = [f"{word} {limit}" for word, limit in limits.items() if limit is not None]
        return f" whose {self.score!r} is {' and '.join(said)}" if said else ""

    def _none_passes(self, records: list[Record]) -> str:
        scores = [record.score for record in records if record.score is not None]
        if not scores:
            return f"none of {len(records):,} records of {self.source!r} has a {self.score!r}"
        return (
            f"{self.source!r} has {len(records):,} records and none{self._asked()}: the "
            f"{len(scores):,} scores that there are lie between {min(scores):.3g} and "
            f"{max(scores):.3g}; ask for others"
        )
