"""The classes of uneven models, known to transformers and to pickle."""

from __future__ import annotations

import copy
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    ViTForImageClassification,
)

from lightning_prune.anatomy import Anatomy, family_of
from lightning_prune.checkpoints.load import load
from lightning_prune.checkpoints.save import save_folder
from lightning_prune.export.hf import save
from lightning_prune.modeling import registry
from lightning_prune.modeling.modeling_pruned import Layout
from lightning_prune.surgery import add_biases, shrink
from tests.checkpoints.models import assert_same_model, uneven
from tests.fresh import Fresh
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, tiny_plan

NEWCOMER = Path(__file__).with_name("newcomer.py")


def in_parts(model_type: str) -> Any:
    """A model with a block without attention, one without MLP, and a bias of its own."""
    model = tiny_model(model_type)
    add_biases(Anatomy(model), ["fc2" if model_type == "opt" else "mlp.down_proj"])
    shrink(Anatomy(model), tiny_plan(model, group={0: []}, neuron={1: []}))
    return model


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


def test_an_uneven_model_made_from_its_config_is_initialised() -> None:
    """`from_config` gives fresh weights of the right sizes, not leftovers of the memory."""
    config = uneven("opt").config
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    assert [(b.heads, b.width) for b in Anatomy(model).blocks] == [(1, 22), (8, 3), (3, 9)]
    for site in Anatomy(model).blocks[0].sites:
        assert 0.01 < site.module.weight.std() < 0.03  # OPT's init_std is 0.02
        assert (site.module.bias == 0).all()


# --- pickle ---


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_model_comes_back_from_pickle(model_type: str) -> None:
    """Of the same class, also where a block has no attention, and so does its config."""
    model = in_parts(model_type)
    for protocol in (2, pickle.HIGHEST_PROTOCOL):
        again = pickle.loads(pickle.dumps(model, protocol))
        assert type(again) is type(model)
        assert type(again.config) is type(model.config)
        assert_same_model(model, again)
        config = pickle.loads(pickle.dumps(model.config, protocol))
        assert config.to_dict() == model.config.to_dict()
    kinds = {type(module) for module in model.modules()}
    assert {type(module) for module in again.modules()} == kinds
    assert {type(module) for module in copy.deepcopy(model).modules()} == kinds


@pytest.mark.parametrize("model_type", ["llama", "phi3"])
def test_a_loaded_model_comes_back_from_torch_save(model_type: str, tmp_path: Path) -> None:
    """And can be pruned and saved from there."""
    model = load(save(in_parts(model_type), tmp_path / "model"))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert_same_model(model, again)
    shrink(Anatomy(again), tiny_plan(again, neuron={0: [3]}))
    assert_same_model(again, load(save(again, tmp_path / "again")))


def test_a_name_that_is_no_class_is_an_attribute_error() -> None:
    """As of any module."""
    for name in ("PrunedGPT9Model", "pruned_clases"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(registry, name)


# --- a new process ---


@pytest.fixture(scope="module")
def newcomer(fresh: Fresh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a process that begins with `import lightning_prune` has been."""
    folder = tmp_path_factory.mktemp("newcomer")
    save(in_parts("llama"), folder / "folder")
    torch.save(in_parts("phi3"), folder / "model.pt")
    (folder / "config.pickle").write_bytes(pickle.dumps(in_parts("opt").config))
    save_file({"ids": tiny_batch()}, folder / "ids.safetensors")
    done = fresh.run(NEWCOMER.read_text(encoding="utf-8"), after="lightning_prune", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def modules_after(newcomer: Path, name: str) -> list[str]:
    """What was there when a module had been imported."""
    loaded: dict[str, list[str]] = json.loads((newcomer / "loaded.json").read_text("utf-8"))
    return loaded[name]


def test_importing_the_package_loads_no_code_of_models(newcomer: Path) -> None:
    """Nor lightning, peft or rich; and transformers reads uneven folders all the same."""
    loaded = modules_after(newcomer, "lightning_prune")
    models = [n for n in loaded if n.startswith("transformers.models.") and ".modeling_" in n]
    assert models == ["transformers.models.auto.modeling_auto"]  # names of classes
    assert not {"lightning", "peft", "rich", "torchmetrics", "bitsandbytes"} & {*loaded}


def test_surgery_loads_nothing_that_is_above_it(newcomer: Path) -> None:
    """Cutting a model takes no cards, hub, servers or tables."""
    loaded = modules_after(newcomer, "lightning_prune.surgery")
    rooms = {name.split(".")[1] for name in loaded if name.startswith("lightning_prune.")}
    assert not rooms & {"checkpoints", "export", "evaluation", "report", "sweep", "analysis"}
    assert not {"lightning", "peft", "rich"} & {*loaded}


def test_a_new_process_reads_folders_and_pickles(newcomer: Path) -> None:
    """The model classes are made when a config or a pickle asks for them."""
    seen = load_file(newcomer / "seen.safetensors")
    with torch.no_grad():
        for name, model_type in (("folder", "llama"), ("pickled", "phi3")):
            torch.testing.assert_close(seen[name], in_parts(model_type)(tiny_batch()).logits)


# --- registering ---


class OwnConfig(LlamaConfig):
    model_type = "own_llama"


class OwnModel(LlamaModel):
    config_class = OwnConfig


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig


def test_a_type_that_transformers_does_not_know_is_refused() -> None:
    """With what to do."""
    with pytest.raises(ValueError, match=r"no model type 'unheard_of'.*AutoConfig\.register"):
        registry.register(replace(family_of("llama"), model_types=("unheard_of",)))
    with pytest.raises(ValueError, match=r"no family with the model type 'unheard_of'.*llama"):
        registry.pruned_classes("unheard_of")


def test_a_family_of_ones_own_gets_classes() -> None:
    """By its config, which is enough to make a model; the classes of others stay."""
    before = registry.pruned_classes("llama")
    AutoConfig.register("own_llama", OwnConfig)
    AutoModel.register(OwnConfig, OwnModel)
    AutoModelForCausalLM.register(OwnConfig, OwnForCausalLM)
    for _ in range(2):
        registry.register(replace(family_of("llama"), model_types=("own_llama",)))
    keys = uneven("llama").config.to_dict() | {"model_type": "pruned_own_llama"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**keys))
    assert type(model).__name__ == "PrunedOwnForCausalLM"
    assert isinstance(model, OwnForCausalLM)
    assert [layer.mlp.up_proj.out_features for layer in model.model.layers] == [22, 3, 9]
    assert pickle.loads(pickle.dumps(model.config)).to_dict() == model.config.to_dict()
    assert registry.pruned_classes("llama") is before


def test_an_image_classifier_gets_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the auto class of its kind; it is saved, loaded and pickled like a language model."""
    sites: dict[str, tuple[tuple[str, ...], str]] = {
        "attention.q_proj": (("query",), ""),
        "attention.k_proj": (("key",), ""),
        "attention.v_proj": (("value",), ""),
        "attention.o_proj": ((), "query"),
        "mlp.fc1": (("neuron",), ""),
        "mlp.fc2": ((), "neuron"),
    }
    layout = Layout(
        blocks="vit.layers",
        attention="attention",
        sites=sites,
        keys={"heads": "num_attention_heads", "width": "intermediate_size"},
        attributes={"attention.num_attention_heads": "heads"},
        auto_class="AutoModelForImageClassification",
    )
    monkeypatch.setattr(registry, "layout_of", lambda _: layout)
    registry.register(replace(family_of("opt"), model_types=("vit",)))
    counts = {0: {"num_attention_heads": 0}, 1: {"intermediate_size": 5}}
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        "pruned_vit",
        **sizes,
        **{"intermediate_size": 8, "image_size": 8, "patch_size": 4, "head_dim": 4},
        per_layer_config=counts,
        allow_global_per_layer_attribute_access=True,
    )
    model = AutoModelForImageClassification.from_config(config).eval()
    assert isinstance(model, ViTForImageClassification)
    assert [layer.mlp.fc1.out_features for layer in model.vit.layers] == [8, 5, 8]
    pixels = torch.ones(2, 3, 8, 8)
    with torch.no_grad():
        logits = model(pixels).logits
        assert torch.equal(pickle.loads(pickle.dumps(model))(pixels).logits, logits)
        loaded = load(save_folder(model, tmp_path / "model"))
        assert type(loaded) is type(model)
        assert torch.equal(loaded(pixels).logits, logits)
