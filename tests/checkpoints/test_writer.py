"""Weights are written shard by shard, under their final names when all of them are there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.checkpoints.writer import ShardWriter, parse_size
from tests.checkpoints.models import assert_same_model, uneven
from tests.tiny import tiny_model

INDEX = "model.safetensors.index.json"


def write(tensors: dict[str, torch.Tensor], folder: Path, *arguments: Any, **named: Any) -> None:
    folder.mkdir(exist_ok=True)
    with ShardWriter(folder, *arguments, **named) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", ["50GB", "20KB", "3KB"])
@pytest.mark.parametrize("make", [tiny_model, uneven])
def test_what_is_written_is_what_transformers_writes(make: Any, size: str, tmp_path: Path) -> None:
    """Tensor by tensor, with the same totals; and transformers reads it."""
    model = make("llama", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    model.config.save_pretrained(tmp_path / "ours")
    write(model.state_dict(), tmp_path / "ours", size)
    ours, theirs = TensorReader(tmp_path / "ours"), TensorReader(tmp_path / "theirs")
    assert ours.info.keys() == theirs.info.keys()
    for name in theirs.info:
        torch.testing.assert_close(ours.tensor(name), theirs.tensor(name), rtol=0, atol=0)
    if size != "50GB":
        index, other = (
            json.loads((tmp_path / who / INDEX).read_text()) for who in ("ours", "theirs")
        )
        assert index["metadata"] == other["metadata"]
        assert index["weight_map"].keys() == other["weight_map"].keys()
        assert {*index["weight_map"].values()} == {*names(tmp_path / "ours")} - {
            "config.json",
            INDEX,
        }
    assert_same_model(model, AutoModelForCausalLM.from_pretrained(tmp_path / "ours"))


def test_files_are_filled_up_to_their_size(tmp_path: Path) -> None:
    """In the order of the tensors; one that is larger has a file of its own."""
    tensors = {name: torch.ones(100) for name in "abcdef"} | {"c": torch.ones(300)}
    write(tensors, tmp_path, 800)
    shards = {name: sorted(load_file(tmp_path / name)) for name in names(tmp_path)[:-1]}
    assert shards == {
        "model-00001-of-00004.safetensors": ["a", "b"],
        "model-00002-of-00004.safetensors": ["c"],
        "model-00003-of-00004.safetensors": ["d", "e"],
        "model-00004-of-00004.safetensors": ["f"],
    }
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["weight_map"] == {name: file for file, held in shards.items() for name in held}
    assert index["metadata"] == {"total_parameters": 800, "total_size": 3200}


def test_one_file_has_an_index_only_if_it_is_asked_for(tmp_path: Path) -> None:
    """And says that it is torch's, beside what it is told to."""
    write({"a": torch.ones(2)}, tmp_path / "one", metadata={"by": "hand"})
    write({"a": torch.ones(2)}, tmp_path / "two", index=True)
    assert names(tmp_path / "one") == ["model.safetensors"]
    assert names(tmp_path / "two") == ["model.safetensors", INDEX]
    with safe_open(tmp_path / "one" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "by": "hand"}


def test_parts_of_tensors_are_written_as_tensors(tmp_path: Path) -> None:
    """Rows, columns, empty parts and parameters; each holds its own numbers only."""
    whole = torch.nn.Parameter(torch.arange(12.0).view(4, 3))
    parts = {"rows": whole[1:3], "more": whole[2:], "columns": whole[:, 1:], "none": whole[:0]}
    write(parts, tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    for name, part in parts.items():
        torch.testing.assert_close(written[name], part.detach())


# --- failures ---


def test_an_error_of_the_caller_leaves_nothing(tmp_path: Path) -> None:
    """Also where files had been filled already."""
    tensors: dict[str, Any] = {name: torch.ones(100) for name in "abc"} | {"d": None}
    with pytest.raises(AttributeError, match="nbytes"):
        write(tensors, tmp_path, 400)
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("succeed", range(7))
def test_a_full_disk_leaves_nothing(
    call: str, succeed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is noticed: no file, half or whole, is there under its final name."""
    allowed, real = [None] * succeed, getattr(os, call)

    def full(*arguments: Any) -> None:
        if not allowed:
            raise OSError(errno.ENOSPC, "No space left on device")
        allowed.pop()
        real(*arguments)

    monkeypatch.setattr(os, call, full)
    tensors = {name: torch.ones(100) for name in "abc"}
    if not (call == "fsync" and succeed > 3):  # three files and the index
        with pytest.raises(OSError, match="disk is full|No space left"):
            write(tensors, tmp_path, 400)
        assert names(tmp_path) == []
        return
    write(tensors, tmp_path, 400)
    assert len(names(tmp_path)) == 4


def test_what_would_be_ambiguous_is_refused(tmp_path: Path) -> None:
    """A name that comes twice, or weights that are there already."""
    with ShardWriter(tmp_path, 4) as writer:
        for name in "ab":
            writer.add(name, torch.ones(1))
        with pytest.raises(ValueError, match="a is written twice"):
            writer.add("a", torch.ones(1))
    for file in ("model.safetensors", "model-00001-of-00002.safetensors", INDEX):
        folder = tmp_path / f"with {file}"
        folder.mkdir()
        (folder / file).touch()
        with pytest.raises(ValueError, match=rf"has weights already \({file}\)"):
            ShardWriter(folder)


@pytest.mark.parametrize(("size", "expected"), [(7, 7), ("5GB", 5 * 10**9), ("20kb", 20_000)])
def test_sizes_are_read(size: int | str, expected: int) -> None:
    """Units of 1000, as everywhere in Hugging Face's libraries."""
    assert parse_size(size) == expected


@pytest.mark.parametrize("size", [0, -1, "5", "0GB", "5 GB", "GB", "1.5GB", "5GiB"])
def test_what_is_no_size_is_refused(size: int | str, tmp_path: Path) -> None:
    """With one that is."""
    with pytest.raises(ValueError, match=f"shard_size={size!r} is not allowed: give a size such"):
        ShardWriter(tmp_path, size)
