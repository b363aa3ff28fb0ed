"""Folders are read with care: what does not fit is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from lightning_prune.checkpoints.load import load
from lightning_prune.export.hf import save, to_hf
from tests.checkpoints.models import assert_same_model, even, uneven
from tests.tiny import tiny_batch, tiny_model


def test_a_given_config_is_used_and_not_changed(tmp_path: Path) -> None:
    """Keys that are overridden in a config of one's own reach the model."""
    folder = save(uneven(), tmp_path / "model")
    config = AutoConfig.from_pretrained(folder)
    config.rms_norm_eps = 0.5
    before = config.to_dict()
    assert load(folder, config=config).config.rms_norm_eps == 0.5
    assert {k: v for k, v in config.to_dict().items() if k != "dtype"} == {
        k: v for k, v in before.items() if k != "dtype"
    }


@pytest.mark.parametrize("placement", ["memory", "checkpoint"])
def test_attention_that_is_capped_is_computed_as_such(placement: Any, tmp_path: Path) -> None:
    """With every version of transformers: some take torch's fused attention, which does not cap."""
    model = tiny_model("gemma2", attn_logit_softcapping=0.5)
    loaded = load(save(model, tmp_path / "model"), placement=placement)
    ids_BT = tiny_batch()
    with torch.no_grad():
        expected = model(ids_BT).logits
        torch.testing.assert_close(loaded(ids_BT).logits, expected)
        for block in loaded.model.layers:
            block.self_attn.attn_logit_softcapping = None
        assert not torch.allclose(loaded(ids_BT).logits, expected)


def test_no_folder_and_no_weights_are_told_apart(tmp_path: Path) -> None:
    """Each message names the file that is missing."""
    with pytest.raises(FileNotFoundError, match=r"no model at .*config\.json does not exist"):
        load(tmp_path / "nothing")
    folder = save(even(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="has no weights"):
        load(folder)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """A folder with only pickled weights is not opened."""
    folder = save(even(), tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin, which is pickled"):
        load(folder)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    """Half a download is told as such."""
    folder = save(even(), tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, truncated"):
        load(folder)


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    """A tensor that does not fit the config is named with its file and both shapes."""
    folder = save(uneven(), tmp_path / "model")
    other = save(even(), tmp_path / "other")
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(ValueError, match=r"in .*model\.safetensors has shape \(48, 32\), and"):
        load(folder)


def test_missing_tensors_are_not_filled_with_random_numbers(tmp_path: Path) -> None:
    """transformers only warns; here it is an error."""
    folder = save(even(), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        load(folder, verify=False)


def test_tensors_that_no_module_takes_are_refused(tmp_path: Path) -> None:
    """A bias that the config does not announce would be left out without a word."""
    folder = save(even(), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.self_attn.o_proj.bias"] = torch.ones(32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"have .*\.1\.self_attn\.o_proj\.bias, which no"):
        load(folder, verify=False)


@pytest.mark.parametrize("tied", [True, False])
def test_tensors_that_transformers_leaves_out_are_no_mistake(tied: bool, tmp_path: Path) -> None:
    """Rotary tables of old checkpoints, and the head that is tied to the embeddings."""
    model = tiny_model("llama", tie_word_embeddings=tied)
    folder = save(model, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"].clone())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert_same_model(model, load(folder, verify=False))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """Shards are found by their index."""
    model = even()
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert_same_model(model, load(tmp_path))
    shard = sorted(tmp_path.glob("model-*.safetensors"))[-1]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard.name} is named in"):
        load(tmp_path)


def test_an_adapter_beside_the_model_is_refused(tmp_path: Path) -> None:
    """transformers would add it to the model without a word."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    folder = save(even(), tmp_path / "model")
    peft.get_peft_model(even(), config).save_pretrained(tmp_path / "adapter")
    for path in (tmp_path / "adapter").glob("adapter_*"):
        shutil.copy(path, folder)
    with pytest.raises(ValueError, match="has an adapter beside the model"):
        load(folder)


@pytest.mark.parametrize(
    "key",
    [
        {"dtype": "nosuch"},
        {"hidden_act": "nosuch"},
        {"num_attention_heads": 0},
        {"hidden_size": "abc"},
        {"rope_parameters": {"rope_type": "nosuch"}},
    ],
    ids=lambda key: next(iter(key)),
)
def test_a_config_that_means_nothing_is_named(key: dict[str, Any], tmp_path: Path) -> None:
    """Whatever transformers makes of it."""
    folder = save(even(), tmp_path / "model")
    (folder / "checksums.json").unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | key), encoding="utf-8")
    with pytest.raises(ValueError, match=r"model/config\.json"):
        load(folder)


@pytest.mark.parametrize("text", ["", "[1]", '{"model_type": "lla'])
def test_a_damaged_config_is_named(text: str, tmp_path: Path) -> None:
    """Half a file, or something else."""
    folder = save(even(), tmp_path / "model")
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load(folder)


@pytest.mark.parametrize("content", [b"", None])
def test_a_damaged_tokenizer_is_named(
    content: bytes | None, model_folder: Path, tmp_path: Path
) -> None:
    """Empty, or a part of it gone."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"the tokenizer in .*model \(.*cannot be read"):
        to_hf(folder, tmp_path / "out")


def test_a_damaged_report_stops_before_weights_are_read(tmp_path: Path) -> None:
    """And is named; nothing is lost."""
    folder = save(even(), tmp_path / "model")
    (folder / "report.json").write_text('{"model"', encoding="utf-8")
    with pytest.raises(ValueError, match=r"report\.json cannot be read"):
        to_hf(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_no_floating_point_numbers_are_named(tmp_path: Path) -> None:
    """They would be cast without a word."""
    folder = save(even(), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"model\.norm\.weight in .* is stored as I32"):
        load(folder, verify=False)


def test_an_unknown_dtype_is_refused_first(tmp_path: Path) -> None:
    """With those that there are."""
    folder = save(even(), tmp_path / "model")
    for dtype in ("float17", "float8_e4m3fn", torch.int8):
        with pytest.raises(ValueError, match="one of 'auto', 'float32', 'bfloat16'"):
            load(folder, dtype)
        with pytest.raises(ValueError, match="one of 'auto', 'float32', 'bfloat16'"):
            to_hf(folder, tmp_path / "out", dtype)


def test_the_bundled_model_is_known_by_its_name() -> None:
    """And by what is near it."""
    assert load("quickstart").config.model_type == "llama"
    with pytest.raises(FileNotFoundError, match=r"lies in\. Did you mean quickstart\?$"):
        load("quickstrat")
    with pytest.raises(FileNotFoundError, match="no model at 'quickstart'"):
        load(Path("quickstart"))  # a folder of that name, and there is none
