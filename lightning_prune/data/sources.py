"""Where text comes from: names on the hub, local files and folders, and the embedded text."""

from __future__ import annotations

import gzip
import json
import pydoc_data.topics
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import datasets
import pyarrow
from pyarrow import parquet

__all__ = ["Documents", "read"]

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")
KINDS = ", ".join(SUFFIXES)
STREAMED_DOCUMENTS = {"train": 20_000, "validation": 1100, "test": 1100}


@dataclass
class Documents:
    """The text of one split.

    Attributes:
        items: texts, or chats (lists of messages with "role" and "content").
        joiner: what stands between texts when they are read as one.
        separate: windows are drawn from single documents, never across two (C4).

    Raises:
        ValueError: some items are texts and others are chats.
    """

    items: list[Any]
    joiner: str = "\n\n"
    separate: bool = False

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

    def text(self) -> str:
        """All documents as one text."""
        return self.joiner.join(self.items)


def read(source: str, split: str, column: str = "text") -> Documents:
    """The text of one split of a source.

    Args:
        source: "builtin", "wikitext2", "wikitext103", "ptb", "c4", a local file or folder, or the
            name of a dataset on the hub.
        split: "train", "validation" or "test".
        column: the column or key that holds the text.

    Raises:
        FileNotFoundError: there is no such file, or the hub did not give the dataset.
        ValueError: the source has no such split or column, cannot be understood, or holds no text.
    """
    path = Path(source).expanduser()
    if source in _NAMED:
        documents = _NAMED[source](split)
    elif path.exists():
        documents = _local(path, split, column)
    elif not _HUB_NAME.fullmatch(source) or source.endswith(SUFFIXES):
        raise FileNotFoundError(
            f"there is no text file or folder {source!r}; names that need no file: "
            f"{', '.join(_NAMED)}"
        )
    else:
        documents = Documents(_texts(_hub(source, split, source), column, source))
    if documents.empty:
        raise ValueError(f"{source!r} holds no text in its {split} split")
    return documents


# --- named sources ---


def _builtin(split: str) -> Documents:
    """Python's own help texts; every 20th topic is for validation, the ones halfway for test."""
    place: dict[str, int] = {}
    for i, (_, text) in enumerate(sorted(pydoc_data.topics.topics.items())):
        place.setdefault(text, i)  # two topics may have one text; it belongs to one split
    split_of = {0: "validation", 10: "test"}
    return Documents([text for text, i in place.items() if split_of.get(i % 20, "train") == split])


def _wikitext(name: str, config: str) -> Callable[[str], Documents]:
    def read_split(split: str) -> Documents:
        rows = _hub(name, split, "Salesforce/wikitext", config)
        # The reference codes join the training lines with a space and the others with blank lines.
        return Documents(list(rows["text"]), joiner=" " if split == "train" else "\n\n")

    return read_split


def _ptb(split: str) -> Documents:
    # The dataset itself is a script, which `datasets` no longer runs; this is the hub's copy of it.
    rows = _hub("ptb", split, "ptb-text-only/ptb_text_only", revision="refs/convert/parquet")
    return Documents(list(rows["sentence"]), joiner=" ")


def _c4(split: str) -> Documents:
    """The beginning of one shard, streamed; C4 has no test split, validation stands in."""
    shard, file = (
        ("train", "en/c4-train.00000-of-01024.json.gz")
        if split == "train"
        else ("validation", "en/c4-validation.00000-of-00008.json.gz")
    )
    rows = _hub("c4", shard, "allenai/c4", data_files={shard: file}, take=STREAMED_DOCUMENTS[split])
    return Documents([row["text"] for row in rows], joiner=" ", separate=True)


def _hub(name: str, split: str, *args: Any, take: int | None = None, **kwargs: Any) -> Any:
    """A split of a hub dataset; with `take` its first rows, streamed."""
    try:
        rows = datasets.load_dataset(*args, split=split, streaming=take is not None, **kwargs)
        return rows if take is None else list(rows.take(take))
    except Exception as error:
        # The hub's client raises dozens of types; all mean that the data did not come.
        reason = " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"no {split} text from {name!r}: it is no local file or folder, and the hub did not "
            f"give it ({type(error).__name__}: {reason}). Known names: {', '.join(_NAMED)}; or "
            f"give the path of a file ({KINDS}) or of a folder with such files."
        ) from error


_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
_NAMED: dict[str, Callable[[str], Documents]] = {
    "builtin": _builtin,
    "wikitext2": _wikitext("wikitext2", "wikitext-2-raw-v1"),
    "wikitext103": _wikitext("wikitext103", "wikitext-103-raw-v1"),
    "ptb": _ptb,
    "c4": _c4,
}


# --- local files ---

_SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def _local(path: Path, split: str, column: str) -> Documents:
    if path.is_file():
        return _share(_file(path, column), split, path)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        saved = datasets.load_from_disk(str(path))
        if not isinstance(saved, datasets.DatasetDict):
            return _share(Documents(_texts(saved, column, str(path))), split, path)
        mine = [name for name in saved if _SPLIT_OF_WORD.get(name) == split]
        if not mine:
            raise ValueError(f"{path} has the splits {', '.join(saved)}, and no {split!r}")
        return Documents(_texts(saved[mine[0]], column, str(path)))
    return _folder(path, split, column)


def _folder(folder: Path, split: str, column: str) -> Documents:
    """All files whose name begins with the split's; where none begins with any, a share of all."""
    files = sorted(f for f in folder.iterdir() if f.name.lower().endswith(SUFFIXES))
    if not files:
        raise ValueError(f"{folder} has no text files ({KINDS})")
    split_of = {f: _SPLIT_OF_WORD.get(re.split("[^a-z]", f.name.lower())[0]) for f in files}
    if not any(split_of.values()):
        return _share(_files(files, column), split, folder)
    mine = [f for f in files if split_of[f] == split]
    if not mine:
        raise ValueError(
            f"{folder} has no {split} file; it has {', '.join(f.name for f in files)}. "
            f"Name one {split}.txt, or {split}-….jsonl, or with another of {KINDS}"
        )
    return _files(mine, column)


def _files(files: Iterable[Path], column: str) -> Documents:
    return Documents([item for file in files for item in _file(file, column).items])


def _file(path: Path, column: str) -> Documents:
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise ValueError(f"{path} is of no known kind; known: {KINDS}")
    try:
        if name.endswith(".parquet"):
            return Documents(_texts(parquet.read_table(path).to_pylist(), column, str(path)))
        with _open(path) as file:
            if name.endswith((".txt", ".txt.gz")):
                return Documents([file.read()])
            return Documents(_texts(_json_lines(file, path), column, str(path)))
    except (OSError, EOFError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _json_lines(file: Iterable[str], path: Path) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}, is not JSON: {error}") from error


def _open(path: Path) -> IO[str]:
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig")


def _texts(rows: Iterable[Any], column: str, source: str) -> list[Any]:
    """The texts of some rows, or their chats if they have `messages`."""
    items = []
    for number, row in enumerate(rows, 1):
        columns = list(row) if isinstance(row, dict) else []
        name = column if column in columns else "messages"
        if name not in columns:
            raise ValueError(
                f"row {number} of {source} has columns {', '.join(columns) or 'of no name'}, and "
                f"neither {column!r} nor 'messages'. Name the one that holds the text: "
                "text_column=…"
            )
        if not isinstance(row[name], str | list):
            raise ValueError(
                f"row {number} of {source} holds a {type(row[name]).__name__} in {name!r}; it has "
                "to be a text, or a chat (a list of messages)"
            )
        items.append(row[name])
    return items


# --- splits of a source that has none ---

_SHARES = {"train": (0.0, 0.9), "validation": (0.9, 0.95), "test": (0.95, 1.0)}


def _share(documents: Documents, split: str, path: Path) -> Documents:
    """The first 90% to train on, then 5% for validation and 5% for test.

    By documents; one or few texts by characters, at ends of lines.
    """
    start, end = _SHARES[split]
    count = len(documents.items)
    if count < 20 and not documents.chats:
        text = documents.text()
        return Documents([text[_place(text, start) : _place(text, end)]])
    items = documents.items[int(count * start) : int(count * end)]
    if not items:
        raise ValueError(
            f"{path} has {count} chats, too few to split into 90% train, 5% validation and 5% "
            "test. Give a folder with train, validation and test files."
        )
    return Documents(items)


def _place(text: str, fraction: float) -> int:
    """Where a fraction of a text has been reached, moved on to the next line, or word if far."""
    place = int(len(text) * fraction)
    line = text.find("\n", place, place + len(text) // 50) + 1
    if place and line:
        return line
    space = re.compile(r"\s+").search(text, place)
    return space.end() if place and space else place
