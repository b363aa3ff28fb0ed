"""Models for GGUF files, small and random: every trap that llama.cpp sets for pruned models."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.surgery import add_biases, shrink
from tests.tiny import tiny_model, tiny_plan, uneven_plan

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
GEMMA = {"query_pre_attn_scalar": 6, "tie_word_embeddings": True}
TIED = {"tie_word_embeddings": True}


class Case(NamedTuple):
    """How a model is made, and the architecture that it must become."""

    architecture: str
    model_type: str
    overrides: dict[str, Any] = {}
    kept: dict[str, dict[int, list[int]]] | None = {}  # None: three different blocks
    biases: bool = False

    def model(self) -> Any:
        model = tiny_model(self.model_type, **self.overrides)
        if self.biases:
            add_random_biases(model)
        shrink(
            Anatomy(model),
            uneven_plan(model) if self.kept is None else tiny_plan(model, **self.kept),
        )
        return model


def add_random_biases(model: nn.Module) -> None:
    add_biases(Anatomy(model), ["mlp.down_proj", "self_attn.o_proj"])
    for _, parameter in model.named_parameters():
        if parameter.ndim == 1 and not parameter.any():
            parameter.data.normal_(generator=torch.Generator().manual_seed(0))


FIVE = {"num_hidden_layers": 5}
CASES = {
    "llama": Case("llama", "llama"),
    "one head each": Case("llama", "llama", {"num_key_value_heads": 8}),
    "mistral": Case("llama", "mistral", {"sliding_window": None}),
    "phi3": Case("llama", "phi3"),
    "qwen2": Case("qwen2", "qwen2", {"head_dim": 4}),
    "qwen2, heads x size not hidden": Case("llama", "qwen2"),
    "qwen3": Case("qwen3", "qwen3"),
    "gemma2": Case("gemma2", "gemma2", GEMMA | {"attn_logit_softcapping": 2.0}),
    "gemma3": Case("gemma3", "gemma3_text", GEMMA | {"tie_word_embeddings": False}),
    "uneven llama": Case("deci", "llama", {}, None),
    "uneven llama, tied": Case("deci", "llama", TIED, None),
    "uneven mistral": Case("deci", "mistral", {"sliding_window": None}, None),
    "uneven phi3": Case("deci", "phi3", {}, None),
    "uneven qwen2": Case("deci", "qwen2", {}, None),
    "uneven qwen3": Case("openelm", "qwen3", TIED, None),
    "one head of keys": Case("deci", "llama", {"num_key_value_heads": 1}, {"neuron": {1: [3]}}),
    "llama3 rotary": Case("llama", "llama", {"rope_parameters": LLAMA3, "head_dim": 8}),
    "uneven llama3": Case("deci", "llama", {"rope_parameters": LLAMA3, "head_dim": 8}, None),
    "linear rotary": Case("llama", "llama", {"rope_parameters": LINEAR}),
    "linear qwen2": Case("qwen2", "qwen2", {"rope_parameters": LINEAR, "head_dim": 4}),
    "no attention first": Case("deci", "llama", FIVE, {"group": {0: []}}),
    "no attention within": Case("deci", "llama", FIVE, {"group": {2: []}}),
    "no attention last": Case("deci", "llama", FIVE, {"group": {4: []}}),
    "no attention qwen3": Case("openelm", "qwen3", FIVE | TIED, {"group": {0: [], 3: []}}),
    "no mlp": Case("deci", "llama", FIVE, {"neuron": {0: [], 2: [], 4: []}}),
    "no mlp qwen3": Case("openelm", "qwen3", FIVE | TIED, {"neuron": {0: [], 4: []}}),
    "idle blocks": Case(
        "llama", "llama", FIVE, {"group": {0: [], 4: []}, "neuron": {0: [], 4: []}}
    ),
    "idle blocks and uneven": Case(
        "deci", "qwen2", FIVE, {"group": {0: [], 4: []}, "neuron": {0: [], 4: [], 1: [5]}}
    ),
    "biases": Case("llama", "llama", biases=True),
    "uneven biases": Case(
        "deci",
        "llama",
        FIVE,
        {"group": {0: [], 2: [], 3: [0]}, "neuron": {1: [], 2: []}},
        biases=True,
    ),
    "biases alone": Case(
        "deci", "llama", FIVE, {"group": {1: [], 4: []}, "neuron": {1: [], 4: []}}, biases=True
    ),
}
