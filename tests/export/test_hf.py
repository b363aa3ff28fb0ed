"""Models as folders: what is saved, what the card says, and that it loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from lightning_prune.anatomy import Anatomy
from lightning_prune.evaluation import TextPerplexity
from lightning_prune.export import load, save, to_hf
from lightning_prune.models import CausalLM
from lightning_prune.plan import Plan
from lightning_prune.report.report import Report
from lightning_prune.surgery import shrink
from tests.export.models import assert_same_model, even, uneven
from tests.report.example import example_report, full_report
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, tiny_plan


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


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_auto_classes_know_uneven_models_without_remote_code(
    model_type: str, tmp_path: Path
) -> None:
    """With lightning_prune imported, `from_pretrained` needs no `trust_remote_code`."""
    model = uneven(model_type)
    save(model, tmp_path / "model")
    assert_same_model(model, AutoModelForCausalLM.from_pretrained(tmp_path / "model"))
    base = AutoModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(
            base(tiny_batch()).last_hidden_state, model.base_model(tiny_batch()).last_hidden_state
        )


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


def test_an_uneven_model_made_from_its_config_is_initialised() -> None:
    """`from_config` gives fresh weights of the right sizes, not leftovers of the memory."""
    config = uneven("opt").config
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    assert [(b.heads, b.width) for b in Anatomy(model).blocks] == [(1, 22), (8, 3), (3, 9)]
    for site in Anatomy(model).blocks[0].sites:
        assert 0.01 < site.module.weight.std() < 0.03  # OPT's init_std is 0.02
        assert (site.module.bias == 0).all()


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


def test_the_card_of_an_even_model_asks_for_no_remote_code(tmp_path: Path) -> None:
    """And names no base model that is not known, nor a path on somebody's disk."""
    model = even()
    model.config._name_or_path = str(tmp_path)
    folder = save(model, tmp_path / "model")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "trust_remote_code" not in card
    assert "base_model" not in card
    assert str(tmp_path) not in card + (folder / "config.json").read_text(encoding="utf-8")


def test_the_card_names_methods_and_figures(tmp_path: Path) -> None:
    """Every method that took part, what is left, and what was measured of it."""
    first = tiny_plan(tiny_model("llama"), neuron={0: [1, 2]})
    first.provenance |= {"model": "quickstart", "method": "A", "arguments": {"plan": str(tmp_path)}}
    second = Plan({"model": "quickstart", "method": "B", "arguments": {"sparsity": 0.5, "x": None}})
    folder = save(
        even(), tmp_path / "model", plan=first.then(second), report=example_report(model="tiny")
    )
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "A pruned version of `quickstart`." in card
    assert "base_model" not in card, "only the hub's names belong there"
    assert "- Method: `A()`\n- Method: `B(sparsity=0.5)`\n" in card
    assert "| dense | 36.21 | 912,345 | 912,345 |" in card
    assert "21.9% of the weights were removed or set to zero." in card
    assert Report.from_json((folder / "report.json").read_text(encoding="utf-8")).files == {}


def test_the_card_s_metadata_is_what_the_hub_reads(tmp_path: Path) -> None:
    """Figures of the last stage as results; a text on somebody's disk without its path."""
    report = full_report()
    report.evaluations["recovered"].perplexities.append(
        TextPerplexity(str(tmp_path), "test", 64, 3, 9.5)
    )
    plan = Plan({"model": "some-org/some-model", "method": "A", "arguments": {}})
    folder = save(even(), tmp_path / "model", plan=plan, report=report)
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8"))
    assert card.data.base_model == "some-org/some-model"
    assert card.data.tags == ["pruned", "lightning_prune"]
    assert card.data.license is None
    results = {(r.dataset_name, r.metric_type): r.metric_value for r in card.data.eval_results}
    assert results == {
        ("wikitext2", "perplexity"): 6.13,
        ("a local text", "perplexity"): 9.5,
        ("boolq", "acc"): 0.5,
        ("rte", "acc"): 0.5,
    }
    assert "| boolq | acc | 100 | 0.5000 ± 0.0100 |" in card.text
    assert str(tmp_path) not in str(card)


def test_the_index_keeps_the_plan_apart_from_the_weights(tmp_path: Path) -> None:
    """Servers that read every safetensors file of a folder go by the index if there is one."""
    model = even()
    folder = save(model, tmp_path / "model", plan=Plan())
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"].values()) == {"model.safetensors"}
    assert set(index["weight_map"]) == set(model.state_dict())


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = {f"w{i}": i for i in range(64)}
    model = Tokenizer(WordLevel(words, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="w0")


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


def test_a_card_does_not_take_a_folder_for_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is written again."""
    monkeypatch.chdir(tmp_path)
    save(even(), "models/mine")
    module = CausalLM("models/mine")
    module.load()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = save(module.base, "saved")
    assert "models/mine" not in (folder / "README.md").read_text(encoding="utf-8")


def test_figures_of_another_dtype_are_said_to_be_such(tmp_path: Path) -> None:
    """The report goes with the model, and was not measured again."""
    report = replace(full_report(), settings={"dtype": "float32"})
    folder = save(even(), tmp_path / "model", report=report)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "measured in" not in card.lower()
    card = (to_hf(folder, tmp_path / "half", "bfloat16") / "README.md").read_text(encoding="utf-8")
    assert "It was measured in float32, and these weights are bfloat16." in card
