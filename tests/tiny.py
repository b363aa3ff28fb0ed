"""Tiny random models of every family, built from a config in a moment."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, ViTConfig, ViTForImageClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan
from tests.copies import Template

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "opt")

_COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_GQA = {"num_key_value_heads": 4, "intermediate_size": 22, "head_dim": 6}
_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
_OWN: dict[str, dict[str, Any]] = {
    "llama": _GQA,
    "mistral": _GQA | {"sliding_window": 8},
    "qwen2": _GQA,
    "qwen3": _GQA,
    "gemma2": _GQA | {"sliding_window": 8, "layer_types": _TYPES},
    "gemma3_text": _GQA | {"sliding_window": 8, "layer_types": _TYPES},
    "phi3": _GQA | {"original_max_position_embeddings": 64},
    "opt": {"ffn_dim": 22, "dropout": 0.0, "word_embed_proj_dim": 32},
}

_MADE: dict[Any, Template] = {}


def tiny_model(
    model_type: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, **overrides: Any
) -> nn.Module:
    """A random causal LM in eval mode, with 3 blocks of 8 heads in 4 groups and 22 neurons.

    Everything that could hide an error is switched on: head_dim differs from hidden / heads where
    the family allows it, and biases and norms are random. `overrides` are config keys.
    """
    key = (model_type, dtype, seed, repr(sorted(overrides.items())))
    if key not in _MADE:
        config = CONFIG_MAPPING[model_type](**(_COMMON | _OWN[model_type] | overrides))
        if "layer_types" in _OWN[model_type] and "num_hidden_layers" in overrides:
            config.layer_types = _TYPES[: overrides["num_hidden_layers"]]
        attention = {"attn_implementation": "eager"} if model_type == "gemma2" else {}  # as loaded
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, **attention)
        _MADE[key] = Template(_randomised(model, seed))
    model = _MADE[key].copy()
    assert isinstance(model, nn.Module)
    return model


def tiny_classifier(seed: int = 0, **overrides: Any) -> nn.Module:
    """A random ViT for images of 8 x 8 in 5 classes, with 3 blocks of 4 heads and 24 neurons."""
    config: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "image_size": 8,
        "patch_size": 4,
        "num_labels": 5,
    }
    return _randomised(ViTForImageClassification(ViTConfig(**(config | overrides))), seed)


@torch.no_grad()
def _randomised(model: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.2
        parameter.copy_(noise + parameter if "norm" in name else noise)
    return model.eval()


def tiny_batch(batch: int = 2, tokens: int = 12, seed: int = 1) -> torch.Tensor:
    """Random token ids (B, T)."""
    return torch.randint(3, 64, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def tiny_images(count: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random images (B, 3, 8, 8) with random classes (B,)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixel_values": torch.randn(count, 3, 8, 8, generator=generator),
        "labels": torch.randint(0, 5, (count,), generator=generator),
    }


def tiny_plan(model: nn.Module, **kept: dict[int, list[int]]) -> Plan:
    """A plan for a model: kind of unit → block → indices that stay."""
    plan, blocks = Plan(), Anatomy(model).blocks
    for kind, chosen in kept.items():
        for index, units in chosen.items():
            plan.set_kept(kind, index, torch.tensor(units), blocks[index].units(kind))
    return plan


def uneven_plan(model: nn.Module) -> Plan:
    """A plan that leaves three different blocks, and some of each kind of unit untouched."""
    return tiny_plan(model, group={0: [3], 2: [0, 1, 3]}, neuron={1: [0, 5, 21], 2: list(range(9))})
