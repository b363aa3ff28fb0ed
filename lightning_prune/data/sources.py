"""Where text comes from: names on the hub, local files and folders, and the embedded text."""

from __future__ import annotations

import gzip
import json
import pydoc_data.topics
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import datasets
import pyarrow
from pyarrow import parquet

from lightning_prune.checks import meant
from lightning_prune.data.documents import Documents, share
from lightning_prune.data.rows import BadRows, Rows

__all__ = ["KINDS", "SPLIT_OF_WORD", "read", "stored_rows"]

TEXTS = (".txt", ".txt.gz")
SUFFIXES = (*TEXTS, ".json", ".jsonl", ".jsonl.gz", ".parquet")
KINDS = ", ".join(SUFFIXES)
STREAMED_DOCUMENTS = {"train": 20_000, "validation": 1100, "test": 1100}


def read(
    source: str,
    split: str,
    column: str = "text",
    whole: bool = False,
    bad_rows: BadRows = "refuse",
) -> Documents:
    """The text of one split of a source.

    Args:
        source: "builtin", "wikitext2", "wikitext103", "ptb", "c4", a local file or folder, or the
            name of a dataset on the hub.
        split: "train", "validation" or "test".
        column: the column or key that holds the text.
        whole: a source without splits is not shared out: all of it is the split.
        bad_rows: whether rows that hold neither a text nor a chat are an error or left out.

    Raises:
        FileNotFoundError: there is no such file, or the hub did not give the dataset.
        ValueError: the source has no such split or column, cannot be understood, or holds no text.
    """
    path, rows = Path(source).expanduser(), Rows(column, bad_rows)
    if source in _NAMED:
        documents = _NAMED[source](split)
    elif path.exists():
        documents = _local(path, split, rows, whole)
    elif not _HUB_NAME.fullmatch(source) or source.endswith(SUFFIXES):
        raise FileNotFoundError(
            f"there is no text file or folder {source!r}; names that need no file: "
            f"{', '.join(_NAMED)}.{meant(source, list(_NAMED))}"
        )
    else:
        documents = _dataset(_hub(source, split, source), split, rows, source, whole)
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
        rows = _hub(name, split, "Salesforce/wikitext", config, split=split)
        # The reference codes join the training lines with a space and the others with blank lines.
        return Documents(list(rows["text"]), joiner=" " if split == "train" else "\n\n")

    return read_split


def _ptb(split: str) -> Documents:
    # The dataset itself is a script, which `datasets` no longer runs; this is the hub's copy of it.
    where: Any = {"revision": "refs/convert/parquet", "split": split}
    rows = _hub("ptb", split, "ptb-text-only/ptb_text_only", **where)
    return Documents(list(rows["sentence"]), joiner=" ")


def _c4(split: str) -> Documents:
    """The beginning of one shard, streamed; C4 has no test split, validation stands in."""
    shard, file = (
        ("train", "en/c4-train.00000-of-01024.json.gz")
        if split == "train"
        else ("validation", "en/c4-validation.00000-of-00008.json.gz")
    )
    where: Any = {"data_files": {shard: file}, "split": shard}
    rows = _hub("c4", shard, "allenai/c4", **where, take=STREAMED_DOCUMENTS[split])
    return Documents([row["text"] for row in rows], joiner=" ", separate=True)


def _hub(name: str, wanted: str, *args: Any, take: int | None = None, **kwargs: Any) -> Any:
    """A hub dataset, wanted for a split; with `take` its first rows, streamed."""
    try:
        rows = datasets.load_dataset(*args, streaming=take is not None, **kwargs)
        return rows if take is None else list(rows.take(take))
    except Exception as error:
        # The hub's client raises dozens of types; all mean that the data did not come.
        reason = " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"no {wanted} text from {name!r}: it is no local file or folder, and the hub did not "
            f"give it ({type(error).__name__}: {reason}). Known names: {', '.join(_NAMED)}; or "
            f"give the path of a file ({KINDS}) or of a folder with such files."
            f"{'' if name in _NAMED else meant(name, list(_NAMED))}"
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

SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def _local(path: Path, split: str, rows: Rows, whole: bool) -> Documents:
    if path.is_file():
        return _share(_file(path, rows), split, path, whole)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _dataset(datasets.load_from_disk(str(path)), split, rows, str(path), whole)
    return _folder(path, split, rows, whole)


def _share(documents: Documents, split: str, source: Path | str, whole: bool) -> Documents:
    """The part of a source without splits."""
    return replace(documents, part="whole") if whole else share(documents, split, source)


def _dataset(table: Any, split: str, rows: Rows, source: str, whole: bool) -> Documents:
    """A split of a dataset; one without splits is shared out."""

    def load(part: Any) -> Documents:
        return Documents(rows.items(part, source))

    if not isinstance(table, datasets.DatasetDict):
        return _share(load(table), split, source, whole)
    parts = {SPLIT_OF_WORD[name]: part for name, part in table.items() if name in SPLIT_OF_WORD}
    documents = _split(parts, load, split, source)
    if documents is None:
        raise ValueError(f"{source} has the splits {', '.join(table)}, and no {split!r}")
    return documents


def _folder(folder: Path, split: str, rows: Rows, whole: bool) -> Documents:
    """All files whose name begins with the split's; where none begins with any, a share of all."""
    files = sorted(f for f in folder.iterdir() if f.name.lower().endswith(SUFFIXES))
    if not files:
        raise ValueError(f"{folder} has no text files ({KINDS})")
    parts: dict[str, list[Path]] = {}
    for file in files:
        if name := SPLIT_OF_WORD.get(re.split("[^a-z]", file.name.lower())[0]):
            parts.setdefault(name, []).append(file)
    if not parts:
        return _share(_files(files, rows), split, folder, whole)
    documents = _split(parts, lambda mine: _files(mine, rows), split, folder)
    if documents is None:
        raise ValueError(
            f"{folder} has no {split} file; it has {', '.join(f.name for f in files)}. "
            f"Name one {split}.txt, or {split}-….jsonl, or with another of {KINDS}"
        )
    return documents


def _split(
    parts: Mapping[str, Any], load: Callable[[Any], Documents], split: str, source: Path | str
) -> Documents | None:
    """One of the splits that were found; None if it is not there.

    Without validation text, the training text gives some of its own.
    """
    missing = [name for name in ("validation", "test") if name not in parts]
    if "train" in parts and "validation" in missing and split in ("train", *missing):
        return share(load(parts["train"]), split, source, missing)
    return load(parts[split]) if split in parts else None


def _files(files: Iterable[Path], rows: Rows) -> Documents:
    return Documents([item for file in files for item in _file(file, rows).items])


def _file(path: Path, rows: Rows) -> Documents:
    if path.name.lower().endswith(TEXTS):
        return Documents(["".join(stored_rows(path))])
    return Documents(rows.items(stored_rows(path), str(path)))


def stored_rows(path: Path) -> Iterator[Any]:
    """The rows of a file as they are, one after the other: of plain text its lines.

    Raises:
        ValueError: it is of no known kind, or cannot be read.
    """
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise ValueError(f"{path} is of no known kind; known: {KINDS}")
    try:
        if name.endswith(".parquet"):
            yield from parquet.read_table(path).to_pylist()
            return
        with _open(path) as file:
            if name.endswith(TEXTS):
                yield from file
            else:
                yield from _json(file, path) if name.endswith(".json") else _json_lines(file, path)
    except (OSError, EOFError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _json_lines(file: Iterable[str], path: Path) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}, is not JSON: {error}") from error


def _json(file: IO[str], path: Path) -> list[Any]:
    try:
        rows = json.load(file)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path} holds {type(rows).__name__}; it has to be a list of rows")
    return rows


def _open(path: Path) -> IO[str]:
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig")
