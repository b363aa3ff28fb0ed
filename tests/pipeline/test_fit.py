"""What is certain not to fit into memory is refused before anything is done."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import FLAP, SparseGPT, Taylor, Wanda, load, prune, save
from lightning_prune.machine import _limit, free_memory, own_memory
from tests.tiny import tiny_batch, tiny_model

BATCHES = [{"input_ids": tiny_batch(seed=seed)} for seed in range(4)]
HIDDEN = 4 * 2 * 12 * 32 * 4


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says how many bytes are free."""

    def say(size: int) -> None:
        for name in ("pipeline.fit.free_memory", "checkpoints.load.free_memory"):
            monkeypatch.setattr(f"lightning_prune.{name}", lambda: size)
        monkeypatch.setattr("lightning_prune.pipeline.fit.free_on_device", lambda _: size)

    return say


def test_the_refusal_says_what_takes_it_and_what_would_fit(free: Any) -> None:
    """The model is as it was."""
    model = tiny_model("llama")
    before = copy.deepcopy(model.state_dict())
    free(HIDDEN - 1)
    message = r"Wanda takes at least 1\d\.\d KiB of the CPU's memory \(hidden states 12\.0 KiB.*"
    with pytest.raises(ValueError, match=message + 'offload: "disk"'):
        prune(model, Wanda(sparsity=0.5), BATCHES)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_repairs_and_fewer_windows_are_named(free: Any) -> None:
    """Where the repair is what does not fit."""
    free(3 * HIDDEN)
    with pytest.raises(ValueError, match="LeastSquares with trust 0"):
        prune(tiny_model("llama"), FLAP(ratio=0.3), BATCHES)


@pytest.mark.parametrize("method", [Wanda(sparsity=0.5), SparseGPT(sparsity=0.5, offload="disk")])
def test_what_may_fit_is_tried(free: Any, method: Any) -> None:
    """Where no more is free than is certain to be needed."""
    evidence = 3 * 8 * 32**2 + 8 * 48**2 + 4 * 8
    free(HIDDEN + 8 * 200 if isinstance(method, Wanda) else evidence)
    assert prune(tiny_model("llama"), method, BATCHES).removes_anything


def test_the_inputs_of_all_blocks_are_certain_only_where_the_whole_is_too_large(free: Any) -> None:
    """Gradients of the whole model at once keep no inputs of blocks."""
    free(10 * HIDDEN)
    assert prune(tiny_model("llama"), Taylor(ratio=0.3, repair=None), BATCHES).kinds


def test_weights_that_do_not_fit_are_to_stay_in_their_files(free: Any, tmp_path: Path) -> None:
    """As another type than they are stored in; before they are read."""
    model = tiny_model("llama")
    folder = save(model, tmp_path / "model")
    size = 8 * sum(p.numel() for p in model.parameters())
    free(size - 1)
    with pytest.raises(ValueError, match="--model.placement checkpoint"):
        load(folder, dtype="float64")
    assert load(folder, placement="checkpoint") is not None
    free(size)
    assert load(folder, dtype="float64") is not None
    free(0)
    assert load(folder) is not None  # mapped as they are stored


def test_weights_that_change_in_memory_are_to_stay_in_their_files(
    free: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the process holds them already."""
    model = tiny_model("llama")
    free(HIDDEN + 8 * 200)
    monkeypatch.setattr("lightning_prune.pipeline.fit.own_memory", lambda: 0)
    with pytest.raises(ValueError, match="Wanda changes .* of weights.*--model.placement check"):
        prune(model, Wanda(sparsity=0.5), BATCHES)


def test_a_container_has_its_own_limit(tmp_path: Path) -> None:
    """Pages of files are none of what it holds, as they can be taken back."""
    assert _limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert _limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 400\nfile 500\n")
    (tmp_path / "memory.swap.max").write_text("0\n")
    assert _limit(tmp_path) == 600
    assert free_memory() > 0
    assert own_memory() > 0
