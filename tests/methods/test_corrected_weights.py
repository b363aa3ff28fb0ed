"""Plans of methods that correct weights bring these along."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_prune import SparseGPT
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from tests.contract.cases import assert_same_state, batches, even_model, state


@pytest.fixture
def corrected(tmp_path: Path) -> Path:
    """A saved plan of SparseGPT, with its weights."""
    model = even_model("llama")
    return prune(model, SparseGPT(sparsity=0.5), batches()).save(tmp_path, model)


def test_a_plan_without_its_weights_says_what_is_missing(tmp_path: Path) -> None:
    """Its masks alone would not give the model; nothing is changed."""
    prune(even_model("llama"), SparseGPT(sparsity=0.5), batches()).save(tmp_path)
    model = even_model("llama")
    before = state(model)
    with pytest.raises(ValueError, match=r"is without them.*plan.save\(folder, model\)"):
        prune(model, SparseGPT(plan=tmp_path))
    assert_same_state(model, before)


@pytest.mark.parametrize("damage", ["truncated", "changed", "gone"])
def test_damaged_weights_are_found(corrected: Path, damage: str) -> None:
    """By their checksum, before anything is applied."""
    file = corrected / "corrected.safetensors"
    if damage == "gone":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    with pytest.raises(ValueError, match="checksums"):
        Plan.load(corrected)
