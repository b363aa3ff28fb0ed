"""The check for vLLM: what stands in the way is named before a server is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_prune import Magnitude, prune
from lightning_prune.anatomy import Anatomy
from lightning_prune.export.hf import save
from lightning_prune.export.vllm import check_vllm
from lightning_prune.surgery import shrink
from tests.tiny import tiny_model, tiny_plan

STOCK = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8, "intermediate_size": 24}


def uneven(tmp_path: Path, model_type: str = "llama", **kept: Any) -> Path:
    """Two of four groups in block 1, 16 of 24 neurons in block 2."""
    model = tiny_model(model_type, **STOCK)
    kept = kept or {"group": {1: [0, 2]}, "neuron": {2: list(range(16))}}
    shrink(Anatomy(model), tiny_plan(model, **kept))
    return save(model, tmp_path / "uneven")


def test_a_stock_folder_is_served_by_vllms_own_class(tmp_path: Path) -> None:
    """Key/value heads may be fewer than GPUs there, if they divide."""
    check = check_vllm(save(tiny_model("llama", **STOCK), tmp_path / "model"), tp=2)
    assert check.native
    assert check.problems == ()
    assert check.fits == (1, 2, 4, 8)
    assert check.command == f"vllm serve {tmp_path / 'model'} --tensor-parallel-size 2"


def test_an_uneven_folder_is_served_by_the_transformers_backend(tmp_path: Path) -> None:
    """Every block must be shared evenly, not only the largest."""
    check = check_vllm(uneven(tmp_path))
    assert not check.native
    assert check.fits == (1, 2)
    assert check.command == (
        f"vllm serve {tmp_path / 'uneven'} --model-impl transformers --trust-remote-code"
    )
    assert any("0.28" in caution for caution in check.cautions)
    check = check_vllm(tmp_path / "uneven", tp=4)
    assert check.problems == ("4 GPUs cannot share 2 key/value heads evenly",)
    assert check.command is None


def test_every_count_that_a_number_of_gpus_does_not_divide_is_named(tmp_path: Path) -> None:
    """Heads, neurons and key/value heads."""
    folder = uneven(tmp_path, group={1: [0]}, neuron={2: [0, 1, 2]})
    problems = " | ".join(check_vllm(folder, tp=4).problems)
    assert "4 GPUs cannot share 2 query heads evenly" in problems
    assert "4 GPUs cannot share 3 MLP neurons evenly" in problems
    assert "4 GPUs cannot share 1 key/value heads evenly" in problems


@pytest.mark.parametrize(
    ("kept", "part"), [({"group": {1: []}}, "attention"), ({"neuron": {2: []}}, "MLP")]
)
def test_blocks_without_a_part_cannot_be_served(kept: Any, part: str, tmp_path: Path) -> None:
    """On no number of GPUs; and it is said where the model does run."""
    check = check_vllm(uneven(tmp_path, **kept))
    assert check.fits == ()
    assert f"have no {part}" in check.problems[0]
    assert "GGUF" in check.problems[0]


def test_pruned_heads_of_a_stock_qwen2_do_not_go_to_vllms_own_class(tmp_path: Path) -> None:
    """It would take another head size."""
    square = save(tiny_model("qwen2", **STOCK | {"head_dim": 4}), tmp_path / "square")
    assert check_vllm(square).native
    check = check_vllm(save(tiny_model("qwen2", **STOCK), tmp_path / "model"))
    assert check.command == f"vllm serve {tmp_path / 'model'} --model-impl transformers"


def test_fused_matrices_are_not_shared(tmp_path: Path) -> None:
    """Phi-3's model code takes them apart by counts of the whole model."""
    folder = uneven(tmp_path, "phi3")
    assert check_vllm(folder).fits == (1,)
    assert "fused" in check_vllm(folder, tp=2).problems[-1]


def test_head_sizes_and_dtypes_are_remarked_on(tmp_path: Path) -> None:
    """They do not forbid serving."""
    odd = check_vllm(save(tiny_model("llama"), tmp_path / "odd"))
    assert [word for c in odd.cautions for word in ("FlashAttention", "float32") if word in c]
    even = save(tiny_model("llama", dtype=torch.bfloat16, **STOCK), tmp_path / "even")
    assert check_vllm(even).cautions == (
        "the folder has no tokenizer: give vLLM one (--tokenizer)",
    )


def test_model_code_that_is_missing_is_named(tmp_path: Path) -> None:
    """A folder that lost it on the way."""
    folder = uneven(tmp_path)
    (folder / "modeling_pruned.py").unlink()
    with pytest.raises(ValueError, match=r"modeling_pruned\.py is gone"):
        check_vllm(folder)
    assert "lacks modeling_pruned.py" in check_vllm(folder, verify=False).problems[0]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["auto_map"]["AutoModel"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    problems = check_vllm(folder, verify=False).problems
    assert "names no class for AutoModel in auto_map" in problems[0]


def test_tensors_too_few_or_too_many_are_named(tmp_path: Path) -> None:
    """A server would find them when it has started."""
    folder = uneven(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors["model.layers.9.mlp.up_proj.weight"] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    check = check_vllm(folder, verify=False)
    assert check.command is None
    assert check.problems[:2] == (
        f"the weights lack {name}",
        "the weights have model.layers.9.mlp.up_proj.weight, which no module takes",
    )


def test_zeros_are_said_to_bring_nothing(tmp_path: Path) -> None:
    """Of a folder whose plan has masks."""
    model = tiny_model("llama", **STOCK)
    plan = prune(model, Magnitude(sparsity=0.5))
    check = check_vllm(save(model, tmp_path / "model", plan))
    assert any("zero bring neither speed" in caution for caution in check.cautions)


def test_no_gpus_are_refused(tmp_path: Path) -> None:
    """The number is checked first."""
    with pytest.raises(ValueError, match="tp=0 is not allowed"):
        check_vllm(tmp_path, tp=0)
