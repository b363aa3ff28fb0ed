"""Records of a file: a text each, and perhaps a score, found by the names of their fields.

A field inside another is named with a dot: "prompt.text" of {"prompt": {"text": …}}.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.checks import Configured
from lightning_prune.data.sources import KINDS, TEXTS, stored_rows

__all__ = ["Labelled", "Record", "read_records"]


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes:
        text: what it says.
        score: None: it has none.
    """

    text: str
    score: float | None = None


class Labelled(Configured):
    """Texts of a file of records, with the labels that others gave them.

    Args:
        source: a file of rows (.jsonl, .jsonl.gz, .json, .parquet).
        text: the field that holds the text, a dot between names; several are joined as they are.
        score: the field that holds the label, a number; records whose label is null are left out.
        cut: the label from which on a text has what is looked for.
    """

    source: str
    text: list[str] | str = "text"
    score: str = "score"
    cut: float = 0.5

    def read(self) -> tuple[list[str], list[float], int]:
        """Texts, as many labels, and how many records were left out.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it cannot be read, or no record has a label.
        """
        records = read_records(self.source, self.text, self.score)
        known = [(r.text, r.score) for r in records if r.score is not None]
        if not known:
            raise ValueError(
                f"none of {len(records):,} records of {self.source!r} has a {self.score!r}"
            )
        texts, labels = zip(*known, strict=True)
        return list(texts), list(labels), len(records) - len(known)


def read_records(
    source: str | Path, text: str | Sequence[str], score: str | None = None
) -> list[Record]:
    """All records of a file.

    Args:
        source: a file of rows (.jsonl, .json, .parquet, also .jsonl.gz); or, without a score, of
            plain text (.txt, .txt.gz), where a line is a record and blank lines are none.
        text: the field that holds the text, or several whose texts are joined as they are. Of a
            plain text there are none.
        score: the field that holds the score, a number or null; None: no score is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, holds no record, or one of them lacks a field, has something
            else in it, or has no text.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(source)!r}; give one of {KINDS}")
    plain = path.name.lower().endswith(TEXTS)
    if plain and score is not None:
        raise ValueError(
            f"{source} is plain text, whose lines have no field {score!r}; leave the score out, or "
            "give a file of rows (.jsonl)"
        )
    fields = [text] if isinstance(text, str) else list(text)
    records = list(_lines(path) if plain else _rows(path, fields, score))
    if not records:
        raise ValueError(f"{source} holds no text")
    return records


def _lines(path: Path) -> Iterator[Record]:
    return (Record(line.rstrip("\n")) for line in stored_rows(path) if line.strip())


def _rows(path: Path, fields: Sequence[str], score: str | None) -> Iterator[Record]:
    for number, row in enumerate(stored_rows(path), 1):
        name = f"row {number} of {path}"
        if not isinstance(row, Mapping):
            raise ValueError(f"{name} holds {type(row).__name__}; it has to be fields with values")
        text = "".join(_text(row, field, name) for field in fields)
        if not text.strip():
            raise ValueError(f"{name} has an empty text in {' + '.join(map(repr, fields))}")
        yield Record(text, None if score is None else _score(row, score, name))


def _text(row: Mapping[str, Any], field: str, name: str) -> str:
    value = _value(row, field, name)
    if not isinstance(value, str):
        raise ValueError(f"{name} holds {type(value).__name__} in {field!r}; it has to be a text")
    return value


def _score(row: Mapping[str, Any], field: str, name: str) -> float | None:
    value = _value(row, field, name)
    if value is None:
        return None
    if not isinstance(value, (int, float)):
        raise ValueError(
            f"{name} holds {type(value).__name__} in {field!r}; a score is a number, or null"
        )
    return None if math.isnan(value) else float(value)


def _value(row: Mapping[str, Any], field: str, name: str) -> Any:
    value: Any = row
    for part in field.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(
                f"{name} has no field {field!r}. Its fields: {', '.join(_fields(row)) or 'none'}"
            )
        value = value[part]
    return value


def _fields(row: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """The names of all fields that have no others in them."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"
