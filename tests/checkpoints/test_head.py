"""A head that is stored beside other embeddings is kept, though config.json says they are tied."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_prune import Magnitude, prune
from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints.load import load
from lightning_prune.export.gguf import to_gguf
from lightning_prune.export.hf import save, to_hf
from lightning_prune.export.vllm import check_vllm
from lightning_prune.models import CausalLM, LoRA, QLoRA, merged_model
from lightning_prune.models.loading import Source
from lightning_prune.surgery import shrink
from tests.checkpoints.models import assert_same_model, even, uneven
from tests.export.gguf_forward import File
from tests.tiny import tiny_batch, tiny_model, uneven_plan

WARNED = r"says that the head is tied .*another head is stored. The stored head is kept"


def says_tied(folder: Path) -> bool:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return bool(config["tie_word_embeddings"])


def disagreeing(model: nn.Module, folder: Path) -> Path:
    """A folder with a head of its own, whose config says that it has none."""
    model.save_pretrained(folder)  # type: ignore[operator]
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"tie_word_embeddings": True}
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("make", [even, uneven])
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "opt"])
def test_the_stored_head_is_loaded_and_saved(model_type: str, make: Any, tmp_path: Path) -> None:
    """With a config that says so from then on, whoever reads it."""
    model = make(model_type)
    folder = disagreeing(model, tmp_path / "model")
    with pytest.warns(UserWarning, match=WARNED):
        read = load(folder)
    assert_same_model(model, read)
    assert read.config.tie_word_embeddings is False  # type: ignore[union-attr]
    saved = save(read, tmp_path / "saved")
    assert not says_tied(saved)
    assert_same_model(model, AutoModelForCausalLM.from_pretrained(saved))
    assert "output layer has weights of its own" in (saved / "README.md").read_text()


def test_a_given_config_is_corrected_in_a_copy(tmp_path: Path) -> None:
    """The caller's own stays as it is."""
    model = tiny_model("llama")
    folder = disagreeing(model, tmp_path)
    config = AutoConfig.from_pretrained(folder)
    with pytest.warns(UserWarning, match=WARNED):
        assert_same_model(model, load(folder, config=config))
    assert config.tie_word_embeddings is True


@pytest.mark.parametrize("adapter", [None, LoRA(r=2), QLoRA(r=2)], ids=["none", "lora", "qlora"])
def test_merging_keeps_the_head(adapter: Any, tmp_path: Path) -> None:
    """The copy that is merged, measured and saved is not tied again."""
    model = tiny_model("llama", hidden_size=64, intermediate_size=64)
    module = CausalLM(str(disagreeing(model, tmp_path / "model")), adapter=adapter)
    with pytest.warns(UserWarning, match=WARNED):
        module.setup("fit")
    merged = merged_model(module)
    assert merged is not None
    torch.testing.assert_close(merged.lm_head.weight, model.lm_head.weight, rtol=0, atol=0)
    saved = save(merged, tmp_path / "recovered")
    assert not says_tied(saved)
    stored = load_file(saved / "model.safetensors")
    torch.testing.assert_close(stored["lm_head.weight"], model.lm_head.weight.detach())


def test_a_model_of_the_hub_keeps_its_head(tmp_path: Path, monkeypatch: Any) -> None:
    """Its config is corrected when it has been loaded."""
    model = tiny_model("llama")
    folder = disagreeing(model, tmp_path)
    monkeypatch.setattr("lightning_prune.models.loading._locate", lambda *_: str(folder))
    source = Source("somebody/model")
    source.is_folder = False
    with pytest.warns(UserWarning, match=r"config.json of somebody/model says"):
        read = source.model("auto", None)
    assert read.config.tie_word_embeddings is False
    assert_same_model(model, read)


@pytest.mark.parametrize("cut", [False, True])
def test_a_model_that_transformers_has_loaded_is_saved_with_its_head(
    cut: bool, tmp_path: Path
) -> None:
    """Pruned in Python, masked or cut."""
    folder = disagreeing(tiny_model("llama"), tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    if cut:
        shrink(Anatomy(model), uneven_plan(model))
    else:
        prune(model, Magnitude(sparsity=0.5))
    saved = save(model, tmp_path / "saved")
    assert not says_tied(saved)
    assert_same_model(model, load(saved))


def test_the_head_is_exported(tmp_path: Path) -> None:
    """To another folder and to GGUF, which says so; vLLM would lose it, which is said too."""
    model = tiny_model("llama", head_dim=8, intermediate_size=24)
    folder = disagreeing(model, tmp_path / "model")
    file = to_gguf(folder, tmp_path / "model.gguf")
    assert any("the head is the stored one" in note for note in file.notes)
    ids_T = tiny_batch(batch=1)[0]
    expected = model(ids_T[None]).logits[0].detach()
    torch.testing.assert_close(File(file.path).logits(ids_T), expected, rtol=1e-4, atol=1e-4)
    assert any("which vLLM would leave out" in problem for problem in check_vllm(folder).problems)
    with pytest.warns(UserWarning, match=WARNED):
        again = to_hf(folder, tmp_path / "again")
    assert not says_tied(again)
    assert_same_model(model, load(again))
    assert check_vllm(again).problems == ()


def test_a_head_that_is_stored_twice_stays_tied(tmp_path: Path) -> None:
    """Some programs write both, with the same values."""
    model = tiny_model("llama", tie_word_embeddings=True)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = load(tmp_path)
    assert read.config.tie_word_embeddings is True  # type: ignore[union-attr]
    assert read.get_input_embeddings().weight is read.get_output_embeddings().weight  # type: ignore[operator]
    assert "output layer" not in (save(read, tmp_path / "saved") / "README.md").read_text()
