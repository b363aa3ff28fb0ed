"""Models whose weights cannot be pruned as they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from lightning_prune import Magnitude, Wanda, prune
from lightning_prune.anatomy import Anatomy, quantisation
from lightning_prune.pipeline.rounds import prune_in_rounds
from tests.tiny import tiny_batch, tiny_model

SETTINGS: dict[str, dict[str, Any]] = {
    "bitsandbytes, 4 bits": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "bitsandbytes, 8 bits": {"load_in_8bit": True, "load_in_4bit": False},
    "gptq, 4 bits": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "awq, 4 bits": {"quant_method": "awq", "bits": 4, "version": "gemm"},
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "pack-quantized"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_quantisation_is_named_as_its_config_names_it(name: str) -> None:
    """With the bits, where they are said; as keys of a file and as attributes."""
    settings = SETTINGS[name]
    assert quantisation({"quantization_config": settings}) == name
    assert quantisation(SimpleNamespace(quantization_config=SimpleNamespace(**settings))) == name


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, SimpleNamespace()])
def test_without_a_quantisation_there_is_no_name(config: Any) -> None:
    """Nor with an empty one."""
    assert quantisation(config) is None


@pytest.mark.parametrize("bits", [4, 8])
def test_a_model_that_transformers_has_quantised_is_refused(bits: int, tmp_path: Path) -> None:
    """By every way into pruning; what it was quantised by is said."""
    tiny_model("llama", hidden_size=64, intermediate_size=64).save_pretrained(tmp_path)
    packing = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=packing)
    said = rf"LlamaForCausalLM is quantised already \(bitsandbytes, {bits} bits\): prune .*QLoRA"
    with pytest.raises(ValueError, match=said):
        prune(model, Magnitude(sparsity=0.5))
    with pytest.raises(ValueError, match=said):
        Anatomy(model)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_a_weight_that_is_no_number_of_16_bits_is_refused(dtype: torch.dtype) -> None:
    """Also where the config does not say that the model is quantised."""
    model = tiny_model("llama")
    linear = model.model.layers[1].mlp.up_proj
    linear.weight = nn.Parameter(linear.weight.to(dtype), requires_grad=False)
    with pytest.raises(ValueError, match=rf"up_proj is quantised already, .*{dtype}: prune"):
        prune(model, Magnitude(sparsity=0.5))


def test_a_weight_of_another_librarys_class_is_refused() -> None:
    """torchao's say that they are bfloat16, and hold integers."""
    packed = type("Packed", (torch.Tensor,), {"__module__": "torchao.quantization"})
    model = tiny_model("llama")
    linear = model.model.layers[0].self_attn.q_proj
    linear.weight = nn.Parameter(linear.weight.detach().as_subclass(packed))
    with pytest.raises(ValueError, match=r"q_proj is quantised already, .* as a Packed of"):
        prune(model, Magnitude(sparsity=0.5))


def on_disk(folder: Path) -> nn.Module:
    """A model whose second block accelerate keeps on the disk."""
    tiny_model("llama").save_pretrained(folder)
    parts = ("embed_tokens", "rotary_emb", "layers.0", "layers.1", "layers.2", "norm")
    places = {f"model.{part}": "disk" if part == "layers.1" else "cpu" for part in parts}
    return AutoModelForCausalLM.from_pretrained(
        folder, device_map=places | {"lm_head": "cpu"}, offload_folder=str(folder / "offload")
    )


def offloaded(folder: Path) -> nn.Module:
    """A model whose weights accelerate brings to the device for each call."""
    accelerate = pytest.importorskip("accelerate")
    model: nn.Module = accelerate.cpu_offload(tiny_model("llama"), torch.device("cpu"))
    return model


def without_weights(folder: Path) -> nn.Module:
    """A model that was made on the meta device."""
    return tiny_model("llama").to("meta")


@pytest.mark.parametrize("make", [on_disk, offloaded, without_weights])
def test_a_model_that_is_not_in_memory_is_refused(make: Any, tmp_path: Path) -> None:
    """With how to load it; also where only some weights are elsewhere, and in rounds."""
    model, batches = make(tmp_path), [{"input_ids": tiny_batch()}]
    said = r"weight is not in memory but on the meta device.*from_pretrained without device_map"
    for method in (Magnitude(sparsity=0.5), Wanda(sparsity=0.5)):
        with pytest.raises(ValueError, match=said):
            prune(model, method, batches)
    with pytest.raises(ValueError, match=said):
        prune_in_rounds(model, Wanda(sparsity=0.5), batches, rounds=2)
