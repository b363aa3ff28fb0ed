"""Tensors are read one at a time, wherever they are stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_prune.checkpoints.reader import DTYPES, TensorInfo, TensorReader
from tests.tiny import tiny_model


def stored(folder: Path) -> dict[str, object]:
    """One model as a folder with a file, as that file, as shards, and in memory."""
    model = tiny_model("llama", dtype=torch.bfloat16)
    model.save_pretrained(folder / "whole")  # type: ignore[operator]
    model.save_pretrained(folder / "shards", max_shard_size="10KB")  # type: ignore[operator]
    assert len(list((folder / "shards").glob("model-*.safetensors"))) > 2
    return {
        "folder": folder / "whole",
        "file": str(folder / "whole" / "model.safetensors"),
        "shards": folder / "shards",
        "state": model.state_dict(),
    }


@pytest.mark.parametrize("source", ["folder", "file", "shards", "state"])
def test_every_source_gives_the_same_tensors(source: str, tmp_path: Path) -> None:
    """Names, shapes, types and sizes are known before; numbers are equal, also by rows."""
    reader = TensorReader(stored(tmp_path)[source])  # type: ignore[arg-type]
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    assert reader.info.keys() == expected.keys()
    for name, tensor in expected.items():
        info = reader.info[name]
        assert (info.shape, info.dtype) == (tuple(tensor.shape), torch.bfloat16)
        assert (info.numel, info.nbytes) == (tensor.numel(), tensor.nbytes)
        torch.testing.assert_close(reader.tensor(name), tensor, rtol=0, atol=0)
        torch.testing.assert_close(reader.rows(name, 2, 5), tensor[2:5], rtol=0, atol=0)


def test_the_file_of_a_tensor_is_known(tmp_path: Path) -> None:
    """So that it can be named; there is none in memory."""
    sources = stored(tmp_path)
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    for name, info in TensorReader(sources["shards"]).info.items():  # type: ignore[arg-type]
        assert info.path == tmp_path / "shards" / index["weight_map"][name]
    state = TensorReader(sources["state"]).info  # type: ignore[arg-type]
    assert {info.path for info in state.values()} == {None}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_type_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    """Empty tensors and single numbers too."""
    matrix = torch.ones(2, 3).to(dtype)
    tensors = {"matrix": matrix, "empty": matrix[:0].clone(), "number": matrix[0, 0].clone()}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    reader = TensorReader(tmp_path)
    for name, tensor in tensors.items():
        assert reader.info[name] == TensorInfo(tuple(tensor.shape), dtype, path)
        read, written = reader.tensor(name).flatten(), tensor.flatten()
        assert read.view(torch.uint8).tolist() == written.view(torch.uint8).tolist()


def test_changing_a_tensor_changes_no_file(tmp_path: Path) -> None:
    """What is mapped is the process's own copy when it is written to."""
    save_file({"weight": torch.zeros(4, 4)}, tmp_path / "model.safetensors")
    reader = TensorReader(tmp_path)
    reader.tensor("weight").fill_(1)
    reader.rows("weight", 0, 2).fill_(1)
    assert not reader.tensor("weight").any()


# --- what cannot be read ---


def test_a_cut_file_is_named_with_the_first_tensor_that_it_lacks(tmp_path: Path) -> None:
    """Half a download; in the middle of the header no tensor can be named."""
    path = tmp_path / "model.safetensors"
    save_file({name: torch.ones(10, 10) for name in "abc"}, path)
    content = path.read_bytes()
    path.write_bytes(content[:-500])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, truncated.*; b is not"):
        TensorReader(tmp_path)
    path.write_bytes(content[:20])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, truncated or no"):
        TensorReader(tmp_path)
    path.write_text("what is this?")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, truncated or no"):
        TensorReader(path)


def test_a_missing_shard_is_named_with_what_is_in_it(tmp_path: Path) -> None:
    """The index knows."""
    shards = stored(tmp_path)["shards"]
    assert isinstance(shards, Path)
    (shards / "model-00002-of-00005.safetensors").unlink(missing_ok=True)
    shard = sorted(shards.glob("model-*.safetensors"))[-1]
    names = list(load_file(shard))
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"is named in .*index\.json.* should be in it"):
        TensorReader(shards)
    assert names


def test_a_file_that_is_damaged_while_it_is_read_is_named(tmp_path: Path) -> None:
    """With the tensor that was asked for."""
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2, 2)}, path)
    reader = TensorReader(tmp_path)
    save_file({"bias": torch.ones(2)}, path)
    for read in (lambda: reader.tensor("weight"), lambda: reader.rows("weight", 0, 1)):
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged.*; weight is not"):
            read()


def test_an_unknown_name_is_a_key_error(tmp_path: Path) -> None:
    """As in any mapping."""
    reader = TensorReader({"weight": torch.ones(2)})
    with pytest.raises(KeyError, match="wait"):
        reader.tensor("wait")


def test_a_type_that_torch_lacks_is_named(tmp_path: Path) -> None:
    """With the tensor and the file."""
    header = json.dumps({"w": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(ValueError, match=r"w in .*model\.safetensors is stored as F4"):
        TensorReader(tmp_path)
