"""What flows back by the rules of AttnLRP.

Axes: B sequences, T tokens, D hidden size, H heads, F features of a head, O outputs, I inputs.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.anatomy import Anatomy
from lightning_prune.attribution import attnlrp
from lightning_prune.evidence import Logit, Relevance
from lightning_prune.sweep import collect
from tests.sweep.helpers import states_of, traces
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model

GATED = [model_type for model_type in MODEL_TYPES if model_type != "opt"]


def logit(model: nn.Module) -> torch.Tensor:
    """The largest logit at the last token of each sequence, added up."""
    logits_BTK: torch.Tensor = model(input_ids=tiny_batch(2, 9)).logits
    return logits_BTK[:, -1].amax(dim=-1).sum()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    weights = dict(model.named_parameters())
    found = torch.autograd.grad(logit(model), list(weights.values()), allow_unused=True)
    return {name: g for name, g in zip(weights, found, strict=True) if g is not None}


def relevance(model: nn.Module) -> dict[str, torch.Tensor]:
    """w · ∂y/∂w of every weight of a Linear inside the blocks."""
    with attnlrp(model):
        found = gradients(model)
    sites = [site for block in Anatomy(model).blocks for site in block.sites]
    return {s.weight_name: s.module.weight.detach() * found[s.weight_name] for s in sites}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_model_computes_what_it_does_outside(model_type: str, attention: str) -> None:
    """Bit for bit, with and without a graph."""
    if (model_type, attention) == ("gemma2", "sdpa"):
        pytest.skip("transformers does not offer it")
    model = tiny_model(model_type)
    model.set_attn_implementation(attention)  # type: ignore[operator]
    ids_BT = tiny_batch(2, 9)
    expected = model(input_ids=ids_BT).logits
    with attnlrp(model):
        assert torch.equal(model(input_ids=ids_BT).logits, expected)
        with torch.no_grad():
            assert torch.equal(model(input_ids=ids_BT).logits, expected)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_nothing_is_left_behind(model_type: str) -> None:
    """Not after an error either: gradients are bit for bit those of before."""
    model = tiny_model(model_type)
    before, plain = traces(model), gradients(model)
    changed = relevance(model)
    with suppress(RuntimeError), attnlrp(model):
        raise RuntimeError("in the middle")
    assert traces(model) == before
    after = gradients(model)
    for name, gradient in plain.items():
        assert torch.equal(after[name], gradient), name
    name = next(iter(changed))
    weight = dict(model.named_parameters())[name].detach()
    assert not torch.allclose(changed[name], weight * plain[name], rtol=1e-2)


def test_other_models_keep_their_gradients() -> None:
    """Of the same class, while one is inside."""
    model, other = tiny_model("llama"), tiny_model("llama")
    expected = gradients(other)
    with attnlrp(model):
        for name, gradient in gradients(other).items():
            assert torch.equal(gradient, expected[name])


def test_a_context_inside_another_changes_nothing() -> None:
    """And the outer one goes on behind it."""
    model = tiny_model("llama")
    expected = relevance(model)
    with attnlrp(model):
        for found in (relevance(model), relevance(model)):
            for name, relevance_OI in found.items():
                assert torch.equal(relevance_OI, expected[name])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_type", GATED)
def test_the_parts_of_a_gated_neuron_have_fixed_proportions(
    model_type: str, attention: str
) -> None:
    """Gate and up each have half of what down has, neuron by neuron (without biases)."""
    if (model_type, attention) == ("gemma2", "sdpa"):
        pytest.skip("transformers does not offer it")
    model = tiny_model(model_type)
    model.set_attn_implementation(attention)  # type: ignore[operator]
    found = relevance(model)
    for block in Anatomy(model).blocks:
        *up, down = [s for s in block.sites if "neuron" in (*s.table.rows, s.table.columns)]
        read_U = found[down.weight_name].sum(dim=0)
        parts = torch.cat([found[site.weight_name].sum(dim=1) for site in up]).view(2, -1)
        limit = 1e-4 * float(read_U.abs().max())
        for part_U in parts:
            torch.testing.assert_close(2 * part_U, read_U, rtol=1e-4, atol=limit)


def test_without_a_softmax_nothing_is_lost_in_a_neuron_without_gate() -> None:
    """OPT's rows of fc1, and their biases, have what the columns of fc2 have."""
    model = tiny_model("opt")
    with attnlrp(model):
        found, weights = gradients(model), dict(model.named_parameters())
    for block in Anatomy(model).blocks:
        name = f"{block.name}.fc1"
        rows_U = (weights[f"{name}.weight"] * found[f"{name}.weight"]).sum(dim=1)
        rows_U = rows_U + weights[f"{name}.bias"] * found[f"{name}.bias"]
        other = f"{block.name}.fc2.weight"
        columns_U = (weights[other] * found[other]).sum(dim=0)
        torch.testing.assert_close(rows_U, columns_U, rtol=1e-4, atol=1e-6)


def explained(objective: Logit) -> dict[str, torch.Tensor]:
    """w · g of every weight, block by block."""
    states = states_of(tiny_model("llama"), [{"input_ids": tiny_batch(3, 9)}])
    found = collect(states, Relevance(objective=objective), states.anatomy.blocks, "none")
    return {name: one.first_OI for _, results in found for name, one in results.items()}


@pytest.mark.parametrize("places", ["last", "all"])
def test_one_answer_is_explained_against_another(places: Any) -> None:
    """The difference of two logits has the difference of their relevance."""
    first, second = (explained(Logit(places=places, token=token)) for token in (5, 9))
    difference = explained(Logit(places=places, token=5, against=9))
    for name, found_OI in difference.items():
        limit = 1e-5 * float(first[name].abs().max())
        torch.testing.assert_close(found_OI, first[name] - second[name], rtol=1e-3, atol=limit)


# --- the table of the paper, once more, in a model written out ---


class Half(torch.autograd.Function):
    """Divides what flows back by a number."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, by: float) -> torch.Tensor:
        ctx.by = by
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return gradient / ctx.by, None


def rms_norm(hidden: torch.Tensor, norm: Any) -> torch.Tensor:
    scale = (hidden.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt().detach()
    return hidden * scale * norm.weight


def written_out(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    """A Llama, layer by layer, with the rules in it; the logits at the last token."""
    config, hidden = model.config, model.model.embed_tokens(ids_BT)
    batch, tokens = ids_BT.shape
    heads, groups, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    cos, sin = model.model.rotary_emb(hidden, torch.arange(tokens)[None])
    later = torch.full((tokens, tokens), -math.inf).triu(1)

    def turned(value_BHTF: torch.Tensor) -> torch.Tensor:
        left, right = value_BHTF.chunk(2, dim=-1)
        return value_BHTF * cos[:, None] + torch.cat((-right, left), dim=-1) * sin[:, None]

    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        normed = rms_norm(hidden, layer.input_layernorm)
        query = attention.q_proj(normed).view(batch, tokens, heads, width).transpose(1, 2)
        key, value = (
            linear(normed).view(batch, tokens, groups, width).transpose(1, 2)
            for linear in (attention.k_proj, attention.v_proj)
        )
        key, value = (one.repeat_interleave(heads // groups, dim=1) for one in (turned(key), value))
        scores = Half.apply(turned(query) @ key.mT, 2.0) / width**0.5 + later
        mixed = Half.apply(scores.softmax(dim=-1) @ value, 2.0)
        hidden = hidden + attention.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        normed = rms_norm(hidden, layer.post_attention_layernorm)
        gate = mlp.gate_proj(normed)
        gate = gate * (F.silu(gate) / gate).detach()
        hidden = hidden + mlp.down_proj(Half.apply(gate * mlp.up_proj(normed), 2.0))
    logits: torch.Tensor = model.lm_head(rms_norm(hidden, model.model.norm))[:, -1]
    return logits


def test_relevance_is_that_of_a_model_written_out() -> None:
    """With grouped heads and a head size of its own."""
    model = tiny_model("llama")
    logits_BK = written_out(model, tiny_batch(2, 9))
    torch.testing.assert_close(logits_BK.amax(dim=-1).sum(), logit(model))
    weights = {s.weight_name: s.module.weight for b in Anatomy(model).blocks for s in b.sites}
    expected = torch.autograd.grad(logits_BK.amax(dim=-1).sum(), list(weights.values()))
    found = relevance(model)
    for (name, weight), gradient in zip(weights.items(), expected, strict=True):
        expected_OI = weight.detach() * gradient
        limit = 1e-4 * float(expected_OI.abs().max())
        torch.testing.assert_close(found[name], expected_OI, rtol=1e-3, atol=limit, msg=name)
