"""Where a plan comes from: the hash of a model, and what it was before."""

from __future__ import annotations

import torch

from lightning_prune import GQATaylor, Magnitude, prune
from lightning_prune.digests import fingerprint
from tests.contract.cases import batches, even_model
from tests.tiny import tiny_model


def test_provenance_is_about_the_model_as_it_was() -> None:
    """An uneven model has another type afterwards; the plan names the one that it was made for."""
    model = tiny_model("llama")
    plan = prune(model, GQATaylor(ratio=0.5, layer_start=1), batches())
    assert model.config.model_type == "pruned_llama"
    assert plan.provenance["model_type"] == "llama"
    assert plan.provenance["model"] == "LlamaForCausalLM"


def test_a_fingerprint_is_the_same_for_the_same_model() -> None:
    """Whatever the mode; no randomness in it."""
    assert fingerprint(even_model("llama")) == fingerprint(even_model("llama").train())


def test_a_fingerprint_tells_models_apart() -> None:
    """By seed, type, shape, and by what pruning did."""
    model = even_model("llama")
    found = {
        fingerprint(model),
        fingerprint(even_model("llama", seed=1)),
        fingerprint(even_model("llama", dtype=torch.bfloat16)),
        fingerprint(even_model("llama", intermediate_size=20)),
        fingerprint(even_model("qwen3")),
    }
    prune(model, Magnitude(sparsity=0.1))
    found.add(fingerprint(model))
    assert len(found) == 6


def test_a_fingerprint_sees_every_column() -> None:
    """Elimination leaves the first column of every weight as it was."""
    model = even_model("llama", hidden_size=64)
    before = fingerprint(model)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[:, 1:] *= -3
    assert fingerprint(model) != before
