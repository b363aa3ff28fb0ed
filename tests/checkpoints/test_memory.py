"""What reading and writing takes of memory is a tensor or a shard, not the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from lightning_prune.checkpoints.reader import TensorReader

TENSOR, SHARD = 4_200_000, 8_500_000


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of 28 matrices of 4 MB in one file, and what `memory.py` made of it."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("the memory of a process is read from /proc")
    folder, out = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("out")
    config = LlamaConfig(
        hidden_size=1024,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        vocab_size=64,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    assert (folder / "model.safetensors").stat().st_size > 28 * 1024 * 1024 * 4
    (out / "written").mkdir()
    script = Path(__file__).with_name("memory.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, out


def taken(folders: tuple[Path, Path], work: str) -> int:
    most: dict[str, int] = json.loads((folders[1] / "taken.json").read_text("utf-8"))
    return most[work]


@pytest.mark.slow
def test_one_tensor_at_a_time_is_read(folders: tuple[Path, Path]) -> None:
    """Its memory is given back with it, also where it is mapped from the file."""
    assert TENSOR / 2 < taken(folders, "read") < 3 * TENSOR


@pytest.mark.slow
def test_rows_that_are_not_asked_for_are_not_read(folders: tuple[Path, Path]) -> None:
    """Two of 1024 rows of every matrix, all held, and what lies beside them on the disk."""
    assert taken(folders, "rows") < 3 * TENSOR


@pytest.mark.slow
def test_no_more_than_a_shard_is_held_for_writing(folders: tuple[Path, Path]) -> None:
    """What is written is what was read."""
    assert taken(folders, "write") < 2 * SHARD
    read, written = TensorReader(folders[0]), TensorReader(folders[1] / "written")
    assert len({info.path for info in written.info.values()}) > 12
    assert written.info.keys() == read.info.keys()
    for name in read.info:
        assert torch.equal(written.tensor(name), read.tensor(name))


@pytest.mark.slow
def test_another_type_is_made_without_holding_the_model(folders: tuple[Path, Path]) -> None:
    """Weights are mapped, and what is computed of them is one shard."""
    assert taken(folders, "convert") < 4 * SHARD
    read, written = TensorReader(folders[0]), TensorReader(folders[1] / "converted")
    for name in read.info:
        assert torch.equal(written.tensor(name), read.tensor(name).bfloat16())


@pytest.mark.slow
def test_zeros_are_counted_tensor_by_tensor(folders: tuple[Path, Path]) -> None:
    """With what is computed of one."""
    assert taken(folders, "count") < 12 * TENSOR


@pytest.mark.slow
def test_masks_are_compared_matrix_by_matrix(folders: tuple[Path, Path]) -> None:
    """With what is computed of one of each."""
    assert taken(folders, "compare") < 6 * TENSOR
