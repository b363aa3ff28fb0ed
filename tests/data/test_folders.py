"""Folders of text: files by their names, the splits that they give, and what `datasets` saved."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import datasets
import pytest

from lightning_prune.data.sources import read
from tests.data.words import SPLITS, lines, write_rows


def test_files_of_a_folder_are_taken_by_their_names(tmp_path: Path) -> None:
    """All shards of a split, in order; other files are left alone."""
    (tmp_path / "train-1.txt").write_text("one")
    (tmp_path / "train-0.txt").write_text("zero")
    (tmp_path / "dev.txt").write_text("dev")
    (tmp_path / "testimony.txt").write_text("no split")
    write_rows(tmp_path / "test.jsonl", [{"text": "tested"}])
    assert read(str(tmp_path), "train").items == ["zero", "one"]
    assert [read(str(tmp_path), split).text() for split in SPLITS[1:]] == ["dev", "tested"]


@pytest.mark.parametrize("name", ["validation.txt", "valid_raw.txt", "val.txt.gz", "Dev-1.txt"])
def test_validation_files_go_by_several_names(name: str, tmp_path: Path) -> None:
    """All of them are found."""
    opener: Any = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "wt") as file:
        file.write("here")
    assert read(str(tmp_path), "validation").text() == "here"


def test_a_split_that_a_folder_lacks_is_named(tmp_path: Path) -> None:
    """With what there is, and what to do."""
    (tmp_path / "train.txt").write_text("x")
    (tmp_path / "dev.txt").write_text("x")
    with pytest.raises(ValueError, match="no test file; it has dev.txt, train.txt.*test.txt"):
        read(str(tmp_path), "test")


@pytest.mark.parametrize("splits", [("train",), ("train", "test")])
def test_without_validation_text_the_training_text_gives_some(
    splits: tuple[str, ...], tmp_path: Path
) -> None:
    """In a folder of files and in a dataset; what is there is left as it is."""
    for name in splits:
        write_rows(tmp_path / f"{name}.jsonl", [{"text": f"{name} {row}"} for row in lines(40)])
    rows = {name: datasets.Dataset.from_dict({"text": lines(40)}) for name in splits}
    datasets.DatasetDict(**rows).save_to_disk(str(tmp_path / "saved"))
    for source in (tmp_path, tmp_path / "saved"):
        counts = [len(read(str(source), split).items) for split in SPLITS]
        assert counts == ([36, 2, 2] if splits == ("train",) else [38, 2, 40])
        train, validation, _ = (set(read(str(source), split).items) for split in SPLITS)
        assert not train & validation


@pytest.mark.parametrize("name", ["rows.jsonl", "", "saved"])
def test_what_has_no_splits_is_whole_when_asked_for(name: str, tmp_path: Path) -> None:
    """A file, a folder of files, a dataset; and each part says what it is of its source."""
    write_rows(tmp_path / "rows.jsonl", [{"text": row} for row in lines(40)])
    datasets.Dataset.from_dict({"text": lines(40)}).save_to_disk(str(tmp_path / "saved"))
    source = str(tmp_path / name)
    whole = read(source, "test", whole=True)
    assert (whole.items, whole.part) == (lines(40), "whole")
    parts = [read(source, split).part for split in SPLITS]
    assert parts == ["train, 90% of it", "validation, 5% of it", "test, 5% of it"]


def test_a_split_that_is_there_is_not_more_when_the_whole_is_asked_for(tmp_path: Path) -> None:
    """And needs no other name."""
    for split in SPLITS:
        (tmp_path / f"{split}.txt").write_text(f"the {split} text")
    found = read(str(tmp_path), "test", whole=True)
    assert (found.text(), found.part) == ("the test text", "")


def test_folders_saved_by_datasets_are_read(tmp_path: Path) -> None:
    """With splits, or without: then it is shared out like a file."""
    rows = datasets.Dataset.from_dict({"text": lines(40)})
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=rows, valid=rows.select([7])).save_to_disk(str(tmp_path / "two"))
    assert read(str(tmp_path / "one"), "validation").items == lines(40)[36:38]
    assert read(str(tmp_path / "two"), "train").items == lines(40)
    assert read(str(tmp_path / "two"), "validation").items == [lines(40)[7]]
    with pytest.raises(ValueError, match="has the splits train, valid, and no 'test'"):
        read(str(tmp_path / "two"), "test")
