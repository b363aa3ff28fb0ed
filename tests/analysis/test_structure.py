"""Models read from their folders: counts by the shapes that are there, dropped blocks, errors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_prune import GlobalStandardised, MagnitudeSP, prune
from lightning_prune.analysis.structure import structure
from lightning_prune.anatomy import Anatomy
from lightning_prune.export.hf import save
from lightning_prune.plan import Plan
from lightning_prune.surgery import shrink
from tests.image_models import FAMILIES, STAGED, image_model
from tests.tiny import MODEL_TYPES, tiny_model, uneven_plan


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("uneven", [False, True], ids=["dense", "uneven"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_files_say_what_the_model_has(model_type: str, uneven: bool, tmp_path: Path) -> None:
    """Heads, key/value heads, neurons and parameters of every family, fused projections too."""
    model = tiny_model(model_type)
    if uneven:
        shrink(Anatomy(model), uneven_plan(model))
    found = structure(save(model, tmp_path / "model"))
    anatomy = Anatomy(model)
    assert found.model_type == model_type
    assert [(b.index, b.heads, b.kv_heads, b.width, b.parameters) for b in found.blocks] == [
        (b.index, b.heads, b.kv_heads, b.width, sum(p.numel() for p in b.module.parameters()))
        for b in anatomy.blocks
    ]
    parameters = sum(p.numel() for p in model.parameters())
    assert (found.parameters, found.nonzero) == (parameters, parameters)
    assert found.bytes == 4 * parameters
    assert (found.hidden, found.vocabulary, found.dtypes) == (32, 64, ("float32",))


def test_zeros_and_types_are_counted(tmp_path: Path) -> None:
    """Bytes are those of the type; the type of most weights stands first."""
    model = tiny_model("llama", dtype=torch.bfloat16)
    with torch.no_grad():
        model.get_submodule("lm_head").weight.zero_()  # type: ignore[operator, union-attr]
    model.get_submodule("model.norm").float()
    found = structure(save(model, tmp_path / "model"))
    assert found.parameters - found.nonzero == 64 * 32
    assert found.dtypes == ("bfloat16", "float32")
    assert found.bytes == 2 * found.parameters + 2 * 32


def test_shards_and_one_file_say_the_same(tmp_path: Path) -> None:
    """Shards are found by the index."""
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")  # type: ignore[operator]
    shards, whole = structure(tmp_path / "shards"), structure(save(model, tmp_path / "whole"))
    assert shards.blocks == whole.blocks
    assert shards.tensors == whole.tensors


def test_a_plan_tells_which_blocks_were_dropped(tmp_path: Path) -> None:
    """Blocks keep their places in the dense model."""
    plan = Plan()
    for block, kept in enumerate([[0], [], [0], [0]]):
        plan.set_kept("block", block, torch.tensor(kept, dtype=torch.long), 1)
    found = structure(save(tiny_model("llama"), tmp_path / "model", plan))
    assert [block.index for block in found.blocks] == [0, 2, 3]
    assert (3, "mlp.up_proj.weight") in found.tensors
    assert (1, "mlp.up_proj.weight") not in found.tensors


def test_a_damaged_plan_leaves_blocks_numbered_as_they_stand(tmp_path: Path) -> None:
    """The model can be read without it."""
    folder = save(tiny_model("llama"), tmp_path / "model", Plan())
    (folder / "plan.json").write_text("{")
    assert [block.index for block in structure(folder).blocks] == [0, 1, 2]


@pytest.mark.parametrize("absent", [False, True], ids=["empty tensors", "no tensors"])
def test_a_block_without_attention_or_mlp_has_none(absent: bool, tmp_path: Path) -> None:
    """Whether its matrices are there with no rows, or not there at all."""
    folder = save(tiny_model("llama"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    for name in list(tensors):
        attention, mlp = "layers.0.self_attn" in name, "layers.2.mlp" in name
        if attention or mlp:
            whole = tensors.pop(name)
            axis = int(name.endswith(("o_proj.weight", "down_proj.weight")))
            if not absent:
                tensors[name] = whole.narrow(axis, 0, 0).contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    first, _, last = structure(folder).blocks
    assert (first.heads, first.kv_heads, first.width) == (0, 0, 22)
    assert (last.heads, last.kv_heads, last.width) == (8, 4, 0)


def test_an_old_config_without_head_size_is_read(tmp_path: Path) -> None:
    """It is the hidden size by heads then."""
    folder = save(tiny_model("llama", head_dim=4), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["head_dim"]
    (folder / "config.json").write_text(json.dumps(config))
    assert structure(folder).blocks[0].heads == 8


def test_what_is_no_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    """No folder, no config, a config of something else, packed weights, a cut file."""
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no model at .*config\.json does not exist"):
            structure(folder)
    folder = save(tiny_model("llama"), tmp_path / "model")
    change_config(folder, quantization_config={"bits": 4})
    with pytest.raises(ValueError, match="are quantised .* before quantisation"):
        structure(folder)
    change_config(folder, model_type="bert")
    with pytest.raises(ValueError, match="unknown model type 'bert'"):
        structure(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="lacks hidden_size, vocab_size, num_attention_heads"):
        structure(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="is no config of a model"):
        structure(folder)


@pytest.mark.parametrize("length", [4, 100, -50])
def test_a_cut_file_is_refused(length: int, tmp_path: Path) -> None:
    """In its first number, in its header, in its tensors."""
    folder = save(tiny_model("llama"), tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        structure(folder)


@pytest.mark.parametrize("cut", [False, True], ids=["dense", "cut"])
@pytest.mark.parametrize("family", FAMILIES)
def test_image_classifiers_are_read_too(family: str, cut: bool, tmp_path: Path) -> None:
    """Though they are stored under other names; blocks of stages are numbered on."""
    model = image_model(family)
    plan = Plan()
    if cut:
        plan = prune(model, MagnitudeSP(ratio=0.25, allocation=GlobalStandardised(), repair=None))
    found = structure(save(model, tmp_path / "model", plan))
    assert found.model_type == family
    assert [(b.index, b.heads, b.kv_heads, b.width, b.parameters) for b in found.blocks] == [
        (b.index, b.heads, b.kv_heads, b.width, sum(p.numel() for p in b.module.parameters()))
        for b in Anatomy(model).blocks
    ]
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.hidden == (None if family in STAGED else 32)
    assert found.vocabulary is None
    assert sum(math.prod(shape) for shape in found.tensors.values()) == found.parameters
