"""Weights that are NaN or infinite are refused when their block is visited, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import AFR, FLAP, Magnitude, SparseGPT, Taylor, Wanda, load, prune, save
from lightning_prune.callbacks.base import PruningCallback
from tests.contract.cases import batches, even_model

LAST = "model.layers.2.mlp.down_proj.weight"
METHODS = [
    Magnitude(sparsity=0.5),
    Wanda(sparsity=0.5),
    Wanda(sparsity=0.5, propagate="layer"),
    SparseGPT(sparsity=0.5),
    FLAP(ratio=0.25),
    Taylor(ratio=0.25),
    AFR(ratio=0.25),
]


def damaged(name: str = LAST, value: float = float("nan")) -> Any:
    model = even_model("llama")
    with torch.no_grad():
        model.get_parameter(name)[1, 2] = value
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_matrix_is_named(value: float) -> None:
    """In one line."""
    with pytest.raises(ValueError, match=rf"^{LAST} holds NaN or infinite values[^\n]*$"):
        prune(damaged(value=value), Magnitude(sparsity=0.5), batches())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_so_is_one_in_a_file(method: PruningCallback, tmp_path: Path) -> None:
    """Whose files are left as they were."""
    save(damaged(), tmp_path / "model")
    files = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    model = load(tmp_path / "model", placement="checkpoint")
    with pytest.raises(ValueError, match=f"^{LAST} holds NaN"):
        prune(model, method, batches())
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir()} == files


@pytest.mark.parametrize(
    "method", [Wanda(sparsity=0.5, layer_end=1), Magnitude(sparsity=0.5, layer_start=1)], ids=str
)
@pytest.mark.parametrize("block", [0, 2])
def test_so_is_one_in_a_block_that_is_not_pruned(method: PruningCallback, block: int) -> None:
    """It would be saved with the others."""
    name = f"model.layers.{block}.self_attn.q_proj.weight"
    with pytest.raises(ValueError, match=f"^{name} holds NaN"):
        prune(damaged(name), method, batches())


def test_finished_blocks_stay(tmp_path: Path) -> None:
    """What was decided on the blocks before is kept, and no plan is made."""
    for _ in range(2):
        with pytest.raises(ValueError, match=f"^{LAST} holds NaN"):
            prune(damaged(), Wanda(sparsity=0.5), batches(), resume=tmp_path / "unfinished")
        assert len(list((tmp_path / "unfinished").glob("*.json"))) == 2
