"""Folders: written whole or not at all, read with care."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
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
from lightning_prune.report import Report
from lightning_prune.surgery import shrink
from tests.report.example import example_report, full_report
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, tiny_plan, uneven_plan


def uneven(model_type: str = "llama", **overrides: Any) -> Any:
    model = tiny_model(model_type, **overrides)
    shrink(Anatomy(model), uneven_plan(model))
    return model


def even(model_type: str = "llama", **overrides: Any) -> Any:
    model = tiny_model(model_type, **overrides)
    shrink(Anatomy(model), tiny_plan(model, neuron={i: [0, 1, 2 + i] for i in range(3)}))
    return model


def assert_same_model(model: nn.Module, other: nn.Module) -> None:
    assert not other.training
    with torch.no_grad():
        torch.testing.assert_close(
            other(tiny_batch()).logits, model(tiny_batch()).logits, rtol=0, atol=0
        )


# --- round trips ---


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


# --- what lies in the folder ---


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


# --- written whole or not at all ---


def test_a_failure_while_saving_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the middle of writing changes nothing and leaves no rubbish."""
    model = even()
    folder = save(model, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    plan = Plan()
    monkeypatch.setattr(plan, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tiny_model("opt"), folder, plan=plan)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says how much is needed and how much there is."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5000))
    with pytest.raises(OSError, match=r"needs 0\.02 GB, the disk has 0\.00 GB free"):
        save(even(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_older_model_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Nothing of an uneven model is left beside an even one."""
    folder = save(uneven(), tmp_path / "model", plan=uneven_plan(tiny_model("llama")))
    save(even(), folder)
    assert not (folder / "modeling_pruned.py").exists()
    assert not (folder / "plan.json").exists()


@pytest.mark.parametrize("content", ["notes.txt", "config.json/checkpoint"])
def test_a_folder_with_other_things_in_it_is_not_replaced(content: str, tmp_path: Path) -> None:
    """Saving into a home or a run folder must not delete it."""
    path = tmp_path / "mine" / content
    path.parent.mkdir(parents=True)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a plain model folder"):
        save(even(), tmp_path / "mine")
    assert path.read_text(encoding="utf-8") == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    """A folder made beforehand does not stand in the way."""
    (tmp_path / "model").mkdir()
    load(save(even(), tmp_path / "model"))


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


# --- read with care ---


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
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or truncated"):
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


def test_a_config_that_is_no_model_s_does_not_make_a_model_folder(tmp_path: Path) -> None:
    """It is the commonest name of a file; what lies beside it stays."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "config.json").write_text('{"my": "app"}', encoding="utf-8")
    with pytest.raises(ValueError, match="no config.json of a model"):
        save(even(), tmp_path / "app")
    folder = save(even(), tmp_path / "model")
    (folder / "thesis.tex").touch()
    with pytest.raises(ValueError, match="it has thesis.tex"):
        save(even(), folder)


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    """The model goes where it points to, and nothing is left beside it."""
    (tmp_path / "disk" / "large").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "model"
    link.symlink_to(tmp_path / "disk" / "large")
    for _ in range(2):
        save(even(), link)
        assert link.is_symlink()
        load(link)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["large"]


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
        with pytest.raises(ValueError, match="give auto, float32, bfloat16"):
            load(folder, dtype)
        with pytest.raises(ValueError, match="give auto, float32, bfloat16"):
            to_hf(folder, tmp_path / "out", dtype)


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
