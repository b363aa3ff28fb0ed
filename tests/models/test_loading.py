"""What is said when a model cannot be loaded, and where it comes from when it can."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_prune.checkpoints.load import load
from lightning_prune.models import CausalLM
from lightning_prune.models.loading import Source
from tests.tiny import tiny_batch, tiny_model


@pytest.fixture
def folder(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def loaded(**arguments) -> CausalLM:
    module = CausalLM(**arguments)
    module.load()
    return module


def test_a_path_that_does_not_exist_is_one_line_that_says_what_to_do(tmp_path):
    """The commonest mistake of all."""
    with pytest.raises(FileNotFoundError, match="no such folder.*hub.*config.json") as caught:
        loaded(path=str(tmp_path / "nothing"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_hub_name_that_cannot_be_reached_is_the_same_line(monkeypatch):
    """Without a network the answer comes at once, with the reason."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="no model 'nobody/nothing'.*quickstart") as caught:
        loaded(path="nobody/nothing")
    assert len(str(caught.value).splitlines()) == 1


def test_a_misspelt_name_of_the_bundled_model_names_it(monkeypatch):
    """What is far from it, or a path, does not."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"or 'quickstart'\. Did you mean quickstart\?$"):
        loaded(path="quickstrat")
    for path in ("nobody", "runs/quickstrat"):
        with pytest.raises(FileNotFoundError, match=r"or 'quickstart'\.$"):
            loaded(path=path)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    """For example the run's folder instead of the model's folder in it."""
    with pytest.raises(FileNotFoundError, match="no config.json"):
        loaded(path=str(tmp_path))


def test_an_unknown_model_type_is_refused_before_weights_are_read(folder):
    """The message lists the known types."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "perceptron"}))
    with pytest.raises(ValueError, match="unknown model type 'perceptron'. Known: .*llama"):
        loaded(path=str(folder))
    with pytest.raises(ValueError, match="unknown model type 'perceptron'"):
        CausalLM(config={"model_type": "perceptron"})


def test_weights_that_are_not_in_the_folder_are_not_made_up(folder):
    """Random values in place of missing weights would ruin the model without a word."""
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        loaded(path=str(folder))


def test_pickled_weights_are_not_read(folder):
    """Only safetensors."""
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="Only safetensors are read"):
        loaded(path=str(folder))


@pytest.mark.parametrize("arguments", [{}, {"path": "a", "config": {"model_type": "llama"}}])
def test_a_model_has_one_origin(arguments):
    """Path or config, and exactly one of them."""
    with pytest.raises(ValueError, match="one of the two"):
        CausalLM(**arguments)


def test_a_folder_gives_its_weights_in_the_asked_type(folder):
    """`auto` keeps the saved type."""
    tokens = tiny_batch()
    module = loaded(path=str(folder))
    torch.testing.assert_close(module.base(tokens).logits, tiny_model("llama")(tokens).logits)
    assert loaded(path=str(folder), dtype="bfloat16").base.dtype == torch.bfloat16


def test_what_the_data_asks_is_known_before_the_model_is_loaded(folder):
    """Lightning sets the datamodule up first."""
    module = CausalLM(path=str(folder))
    assert module.max_position_embeddings == 64
    assert module.tokenizer is None
    assert module.model is None


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, r"gptq, 4 bits"),
        ({"quant_method": "awq", "bits": 4}, r"awq, 4 bits"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, r"bitsandbytes, 8 bits"),
    ],
)
def test_a_quantised_model_is_refused_before_its_weights_are_read(folder, settings, name):
    """Whether or not the packages that could unpack them are there."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    (folder / "model.safetensors").write_bytes(b"")
    said = rf"is quantised already \({name}\): prune the model from before, .* then quantise"
    for refused in (lambda: loaded(path=str(folder)), lambda: load(folder)):
        with pytest.raises(ValueError, match=said) as caught:
            refused()
        assert len(str(caught.value).splitlines()) == 1


def test_a_quantised_model_of_the_hub_is_refused_by_its_config(folder, monkeypatch):
    """No weight is downloaded for it."""
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("lightning_prune.models.loading._locate", lambda *_: str(folder))
    source = Source("somebody/quantised")
    source.is_folder = False
    with pytest.raises(ValueError, match=r"the model 'somebody/quantised' is quantised .*gptq"):
        source.model("auto", None)
