"""Models as folders: what is saved, and that it loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaForCausalLM

from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints.load import load
from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.export.hf import save, to_hf
from lightning_prune.plan import Plan
from lightning_prune.surgery import shrink
from tests.checkpoints.models import assert_same_model, even, tokenizer, uneven
from tests.tiny import MODEL_TYPES, tiny_model, tiny_plan


@pytest.mark.parametrize("make", [even, uneven])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_is_saved_is_what_is_loaded(model_type: str, make: Any, tmp_path: Path) -> None:
    """Save and load keep class, logits and config of every family."""
    model = make(model_type)
    other = load(save(model, tmp_path / "model"))
    assert type(other) is type(model)
    assert_same_model(model, other)
    before, after = model.config.to_dict(), other.config.to_dict()
    assert {k: v for k, v in after.items() if k != "auto_map"} == before | {
        "_name_or_path": str(tmp_path / "model")
    }


def test_even_blocks_give_a_stock_folder(tmp_path: Path) -> None:
    """A folder of a uniformly pruned model holds nothing special."""
    model = even()
    folder = save(model, tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "checksums.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    other = AutoModelForCausalLM.from_pretrained(folder)
    assert type(other) is LlamaForCausalLM
    assert other.config.intermediate_size == 3
    assert_same_model(model, other)


@pytest.mark.parametrize("model_type", ["llama", "opt"])
def test_tied_embeddings_stay_tied(model_type: str, tmp_path: Path) -> None:
    """The embedding is written once and tied again."""
    model = uneven(model_type, tie_word_embeddings=True)
    folder = save(model, tmp_path / "model")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    other = load(folder)
    assert other.get_input_embeddings().weight is other.get_output_embeddings().weight
    assert_same_model(model, other)


def test_the_stored_dtype_is_kept_unless_another_is_asked_for(tmp_path: Path) -> None:
    """`dtype="auto"` is the default."""
    model = uneven(dtype=torch.bfloat16)
    folder = save(model, tmp_path / "model")
    assert_same_model(model, load(folder))
    assert load(folder).dtype == torch.bfloat16
    assert load(folder, dtype=torch.float32, device="cpu").dtype == torch.float32


def test_an_uneven_model_is_pruned_and_saved_again(tmp_path: Path) -> None:
    """A second round on a loaded model writes over its own folder."""
    folder = save(uneven("phi3"), tmp_path / "model")
    model = load(folder)
    shrink(Anatomy(model), tiny_plan(model, neuron={0: [0, 1]}))
    save(model, folder)
    assert [b.width for b in Anatomy(load(folder)).blocks] == [2, 3, 9]
    assert_same_model(model, load(folder))


def test_plan_tokenizer_and_card_are_saved_with_the_model(tmp_path: Path) -> None:
    """Everything that belongs to the model is in one folder."""
    model = tiny_model("llama")
    plan = tiny_plan(model, neuron={0: [1, 2]})
    plan.provenance["model"] = "some-org/some-model"
    shrink(Anatomy(model), plan)
    folder = save(model, tmp_path / "model", plan=plan, tokenizer=tokenizer())
    assert Plan.load(folder).kept("neuron", 0).tolist() == [1, 2]
    assert (folder / "tokenizer.json").is_file()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert ModelCard(card).data.library_name == "transformers"
    assert "base_model: some-org/some-model\n" in card
    assert "20 of 22 MLP neurons in 1 blocks are removed" in card
    assert "trust_remote_code=True" in card
    assert "| 0 | 8 | 4 | 2 |" in card
    assert_same_model(model, load(folder))


def test_the_index_keeps_the_plan_apart_from_the_weights(tmp_path: Path) -> None:
    """Servers that read every safetensors file of a folder go by the index if there is one."""
    model = even()
    folder = save(model, tmp_path / "model", plan=Plan())
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"].values()) == {"model.safetensors"}
    assert set(index["weight_map"]) == set(model.state_dict())


def test_adapters_must_be_merged_before_saving(tmp_path: Path) -> None:
    """A wrapped model is refused, a merged one is saved."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(uneven(), config)
    for model in (wrapped, wrapped.get_base_model()):
        with pytest.raises(ValueError, match="Merge the adapters first"):
            save(model, tmp_path / "model")
    merged = wrapped.merge_and_unload()
    assert_same_model(merged.eval(), load(save(merged, tmp_path / "model")))


# --- as transformers would ---


def assert_same_folder(ours: Path, theirs: Path) -> None:
    """The same weights, and the same words beside them."""
    read, expected = TensorReader(ours), TensorReader(theirs)
    assert read.info.keys() == expected.info.keys()
    for name in expected.info:
        torch.testing.assert_close(read.tensor(name), expected.tensor(name), rtol=0, atol=0)
    for name in ("config.json", "generation_config.json"):
        keys = json.loads((ours / name).read_text("utf-8"))
        keys.pop("auto_map", None)
        assert keys == json.loads((theirs / name).read_text("utf-8"))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("make", [even, uneven])
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "opt"])
def test_what_is_saved_is_what_transformers_saves(
    model_type: str, make: Any, tied: bool, tmp_path: Path
) -> None:
    """Every tensor once, the config and the settings of generation."""
    model = make(model_type, tie_word_embeddings=tied, dtype=torch.float16)
    model.generation_config.max_new_tokens = 7
    save(model, tmp_path / "ours", shard_size="10KB")
    model.save_pretrained(tmp_path / "theirs")
    assert_same_folder(tmp_path / "ours", tmp_path / "theirs")


def test_packed_weights_are_saved_as_transformers_saves_them(tmp_path: Path) -> None:
    """Four bits a number, and what is needed to unpack them."""
    pytest.importorskip("bitsandbytes")
    tiny_model("llama", hidden_size=64, intermediate_size=64).save_pretrained(tmp_path / "plain")
    packing = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=packing)
    save(model, tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs")
    assert_same_folder(tmp_path / "ours", tmp_path / "theirs")
    assert sum("quant_state" in name for name in TensorReader(tmp_path / "ours").info) == 21
    with pytest.raises(ValueError, match=r"quantised already \(bitsandbytes, 4 bits\): prune"):
        to_hf(tmp_path / "ours", tmp_path / "again")


def test_what_is_no_hugging_face_model_is_not_saved(tmp_path: Path) -> None:
    """One sentence says so, and nothing is written."""
    with pytest.raises(ValueError, match="^Linear is no Hugging Face model, and only these are"):
        save(torch.nn.Linear(2, 2), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
