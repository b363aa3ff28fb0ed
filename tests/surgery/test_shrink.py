"""Cutting units off: the shrunken model computes what the masked one computes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan
from lightning_prune.surgery import mask_units, shrink
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, tiny_plan, uneven_plan

EVEN = {0: [0, 2, 5], 1: [7, 8, 9], 2: [1, 20, 21]}
CUTS: dict[str, dict[str, dict[int, list[int]]]] = {
    "neurons": {"neuron": EVEN},
    "groups": {"group": {0: [0, 1], 1: [1, 3], 2: [2, 3]}},
    "both": {"group": {0: [0, 1], 1: [1, 3], 2: [2, 3]}, "neuron": EVEN},
    "uneven neurons": {"neuron": {0: [4], 2: list(range(21))}},
    "uneven groups": {"group": {0: [3], 2: [0, 1, 3]}},
    "uneven": {"group": {0: [3], 2: [0, 1, 3]}, "neuron": {0: [21], 1: [0, 5, 21]}},
}


def assert_same_output(model: nn.Module, plan: Plan, **tolerance: float) -> nn.Module:
    """Shrinks a copy, masks the model, and compares their logits. Returns the shrunken copy."""
    small = copy.deepcopy(model)
    shrink(Anatomy(small), plan)
    mask_units(Anatomy(model), plan)
    with torch.no_grad():
        torch.testing.assert_close(
            small(tiny_batch()).logits, model(tiny_batch()).logits, **tolerance
        )
    return small


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_masked_and_shrunken_give_the_same_logits(model_type: str, cuts: str) -> None:
    """The strongest test of surgery, for every family and kind of cut."""
    model = tiny_model(model_type)
    with torch.no_grad():
        dense = model(tiny_batch()).logits
    small = assert_same_output(model, tiny_plan(model, **CUTS[cuts]), rtol=1e-4, atol=2e-5)
    with torch.no_grad():
        assert (small(tiny_batch()).logits - dense).abs().max() > 0.01  # the cut did something


@pytest.mark.parametrize(
    ("model_type", "overrides"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("qwen3", {"attention_bias": True}),
        ("gemma3_text", {"attention_bias": True}),
        ("llama", {"tie_word_embeddings": True}),
        ("opt", {"tie_word_embeddings": True}),
        ("opt", {"enable_bias": False}),
    ],
)
def test_biases_and_tied_embeddings_stay_in_step(
    model_type: str, overrides: dict[str, Any]
) -> None:
    """Row biases are cut with their rows, output biases and tied embeddings are left alone."""
    model = tiny_model(model_type, **overrides)
    small = assert_same_output(model, uneven_plan(model), rtol=1e-4, atol=2e-5)
    tied = small.get_input_embeddings().weight is small.get_output_embeddings().weight
    assert tied == small.config.tie_word_embeddings


@pytest.mark.parametrize("model_type", ["llama", "phi3"])
def test_one_key_value_head_with_neurons_only(model_type: str) -> None:
    """Multi-query attention has one group; its neurons can still be cut."""
    model = tiny_model(model_type, num_key_value_heads=1)
    assert_same_output(model, tiny_plan(model, neuron={1: [0, 5, 21]}), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "opt"])
def test_bfloat16_stays_bfloat16(model_type: str) -> None:
    """A half-precision model is cut as it is."""
    model = tiny_model(model_type, dtype=torch.bfloat16)
    small = assert_same_output(model, uneven_plan(model), rtol=0.05, atol=0.08)
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}


def test_frozen_parameters_stay_frozen() -> None:
    """Cut parameters keep their `requires_grad`, and all are new leaf parameters."""
    model = tiny_model("qwen2")
    model.requires_grad_(False)
    model.model.layers[0].mlp.up_proj.requires_grad_(True)
    shrink(Anatomy(model), uneven_plan(model))
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "model.layers.0.mlp.up_proj.weight"
    ]
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in model.parameters())


def test_alike_blocks_leave_a_stock_model() -> None:
    """The config of a stock model carries the new counts and the old head size."""
    model = tiny_model("llama")
    shrink(Anatomy(model), tiny_plan(model, **CUTS["both"]))
    config = model.config
    assert type(model) is LlamaForCausalLM
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert (config.intermediate_size, config.head_dim, config.model_type) == (3, 6, "llama")
    assert not config.is_heterogeneous


@pytest.mark.parametrize("model_type", ["llama", "opt"])
def test_alike_blocks_that_the_stock_class_refuses_get_their_own(model_type: str) -> None:
    """6 heads do not divide 32 for Llama, and OPT derives the head size from the count."""
    model = tiny_model(model_type)
    shrink(Anatomy(model), tiny_plan(model, group={i: [0, 1, 2] for i in range(3)}))
    assert model.config.model_type == f"pruned_{model_type}"
    assert model.config.head_dim == Anatomy(model).blocks[0].head_dim


def test_uneven_blocks_are_in_the_config_that_every_module_shares() -> None:
    """Counts go to `per_layer_config`; the global keys keep their dense values."""
    model = tiny_model("llama")
    config = model.config
    shrink(Anatomy(model), uneven_plan(model))
    assert model.config is config
    assert model.model.config is config
    assert type(model).__name__ == "PrunedLlamaForCausalLM"
    blocks = [
        (c.num_attention_heads, c.num_key_value_heads, c.intermediate_size)
        for c in config.per_layer_config
    ]
    assert blocks == [(2, 1, 22), (8, 4, 3), (6, 3, 9)]
    assert (config.num_attention_heads, config.num_key_value_heads) == (8, 4)
    assert config.intermediate_size == 22


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_hidden_states_are_still_returned_after_a_cut(model_type: str) -> None:
    """Changing a model's class does not lose what transformers registers by class."""
    model = tiny_model(model_type)
    shrink(Anatomy(model), uneven_plan(model))
    with torch.no_grad():
        assert len(model(tiny_batch(), output_hidden_states=True).hidden_states) == 4


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_second_round_cuts_an_uneven_model(model_type: str) -> None:
    """An uneven model is pruned like any other."""
    model = tiny_model(model_type)
    shrink(Anatomy(model), uneven_plan(model))
    again = tiny_plan(model, group={1: [1, 2], 2: [0, 2]}, neuron={0: [3, 4], 2: [8]})
    small = assert_same_output(model, again, rtol=1e-4, atol=2e-5)
    assert [c.width for c in Anatomy(small).blocks] == [2, 3, 1]


def test_a_second_round_that_evens_the_blocks_gives_a_stock_model_again() -> None:
    """The uneven class is only worn as long as it is needed."""
    model = tiny_model("phi3")
    shrink(Anatomy(model), tiny_plan(model, neuron={0: [0, 1]}))
    assert model.config.model_type == "pruned_phi3"
    shrink(Anatomy(model), tiny_plan(model, neuron={1: [0, 1], 2: [3, 4]}))
    assert (model.config.model_type, model.config.intermediate_size) == ("phi3", 2)
    assert type(model).__name__ == "Phi3ForCausalLM"
    assert not {"per_layer_config", "auto_map"} & set(model.config.to_dict())
    assert model.model.layers[0].self_attn.config is model.config


def test_attention_that_reads_its_config_follows_the_models() -> None:
    """Phi-3's blocks have their own counts, and the model's attention implementation."""
    model = tiny_model("phi3")
    shrink(Anatomy(model), uneven_plan(model))
    with torch.no_grad():
        before = model(tiny_batch()).logits
        model.set_attn_implementation("eager")
        output = model(tiny_batch(), output_attentions=True)
    assert [a.shape[1] for a in output.attentions] == [2, 8, 6]
    torch.testing.assert_close(output.logits, before, rtol=1e-4, atol=1e-5)


def test_an_empty_plan_changes_nothing() -> None:
    """A plan that keeps everything leaves every parameter and the class in place."""
    model = tiny_model("llama")
    before = list(model.parameters())
    shrink(Anatomy(model), tiny_plan(model, neuron={0: list(range(22))}))
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    assert type(model) is LlamaForCausalLM


@pytest.mark.parametrize(
    ("kind", "block", "index", "total", "message"),
    [
        ("neuron", 1, [0], 30, r"about 30 neuron units in model\.layers\.1, which has 22"),
        ("neuron", 3, [0], 22, "has blocks 0 to 2"),
        ("neuron", 0, [22], 22, "between 0 and 21"),
        ("neuron", 0, [1, 1], 22, "without repeats"),
        ("neuron", 0, [2, 1], 22, "sorted"),
        ("expert", 0, [0], 22, "decides on 'expert' units"),
    ],
)
def test_a_plan_that_does_not_fit_changes_nothing(
    kind: str, block: int, index: list[int], total: int, message: str
) -> None:
    """The refusal names plan and model, and comes before the first cut."""
    model = tiny_model("llama")
    plan = tiny_plan(model, neuron={0: [0]}) if kind != "neuron" else Plan()
    plan.set_kept(kind, block, torch.tensor(index, dtype=torch.long), total)
    before = list(model.parameters())
    for operation in (shrink, mask_units):
        with pytest.raises(ValueError, match=message):
            operation(Anatomy(model), plan)
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))


def test_a_class_of_ones_own_is_not_replaced() -> None:
    """Uneven blocks need the pruned class, which would drop what a subclass adds."""

    class Mine(LlamaForCausalLM):
        pass

    model = tiny_model("llama")
    model.__class__ = Mine
    with pytest.raises(ValueError, match="this model is a Mine"):
        shrink(Anatomy(model), uneven_plan(model))
    shrink(Anatomy(model), tiny_plan(model, **CUTS["both"]))
    assert type(model) is Mine


def test_quantised_weights_are_refused() -> None:
    """Packed integers cannot be cut by rows and columns."""
    model = tiny_model("llama")
    packed = nn.Parameter(torch.zeros(22, 32, dtype=torch.uint8), requires_grad=False)
    model.model.layers[0].mlp.up_proj.weight = packed
    with pytest.raises(ValueError, match=r"up_proj is quantised already, .* torch.uint8: prune"):
        shrink(Anatomy(model), uneven_plan(model))


def test_a_model_read_from_a_file_can_be_cut_and_masked_again(tmp_path: Path) -> None:
    """Its config holds its type itself; after an uneven cut that must be the pruned one."""
    tiny_model("llama").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    shrink(Anatomy(model), uneven_plan(model))
    assert model.config.model_type == "pruned_llama"
    shrink(Anatomy(model), Plan())
    even = tiny_plan(model, neuron={b.index: [0, 1] for b in Anatomy(model).blocks})
    for block in Anatomy(model).blocks:
        even.set_kept("group", block.index, torch.tensor([0]), block.kv_heads)
    shrink(Anatomy(model), even)
    assert (type(model), model.config.model_type) == (LlamaForCausalLM, "llama")
