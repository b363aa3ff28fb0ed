"""Inner features in another order: the model computes what it computed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.surgery import inner_features
from tests.sweep.helpers import shared_model
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model


@torch.no_grad()
def shuffle(model: nn.Module) -> int:
    """Every free order of the model at random; how many weights and biases changed."""
    generator, before = torch.Generator().manual_seed(0), copy.deepcopy(model.state_dict())
    parameters = dict(model.named_parameters())
    for block in Anatomy(model).blocks:
        for inner in inner_features(block):
            order_SF = torch.rand(inner.sets, inner.size, generator=generator).argsort(dim=1)
            for name, axis, index in inner.moves(order_SF):
                parameters[name].copy_(parameters[name].index_select(axis, index))
    return sum(not torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())


@torch.no_grad()
def assert_same_logits(model: nn.Module, other: nn.Module) -> None:
    logits, expected = model(tiny_batch()).logits, other(tiny_batch()).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_any_order_gives_the_same_logits(model_type: str) -> None:
    """Neurons and values of all blocks, in all families: fused weights, biases, GQA."""
    model = tiny_model(model_type)
    assert shuffle(model) >= 3 * 4
    assert_same_logits(model, shared_model(model_type))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_any_number_of_readers_and_biases(groups: int) -> None:
    """All query heads that read a value see it in its new place; biases go with their rows."""
    overrides = {"num_key_value_heads": groups, "attention_bias": True, "mlp_bias": True}
    model = tiny_model("llama", **overrides)
    dense = copy.deepcopy(model)
    shuffle(model)
    assert not torch.equal(
        model.model.layers[0].mlp.up_proj.bias, dense.model.layers[0].mlp.up_proj.bias
    )
    assert_same_logits(model, dense)


def test_columns_of_a_set_are_those_of_all_its_readers() -> None:
    """8 heads of 6 in 4 groups: set 1 is read by heads 2 and 3."""
    block = Anatomy(shared_model("llama")).blocks[0]
    values, neurons = inner_features(block)
    score_OI = torch.arange(2.0 * 48).view(2, 48)
    columns = values.columns(score_OI)
    assert columns.shape == (4, 2 * 2, 6)
    assert columns[1, :, 0].tolist() == [12, 18, 48 + 12, 48 + 18]
    score_OI = torch.arange(2.0 * 22).view(2, 22)
    assert torch.equal(neurons.columns(score_OI), score_OI[None])


@pytest.mark.parametrize(
    ("left_out", "found"),
    [
        ("mlp.up_proj", ["self_attn.o_proj"]),
        ("mlp.down_proj", ["self_attn.o_proj"]),
        ("self_attn.v_proj", ["mlp.down_proj"]),
        ("self_attn.q_proj", ["self_attn.o_proj", "mlp.down_proj"]),
    ],
)
def test_only_what_is_there_as_a_whole_is_free(left_out: str, found: list[str]) -> None:
    """A Linear that is not to be touched fixes the order of what it makes or reads."""
    block = Anatomy(shared_model("llama")).blocks[0]
    part = block.part(site for site in block.sites if site.table.path != left_out)
    assert [inner.reader.table.path for inner in inner_features(part)] == found


def test_the_head_has_no_inner_features() -> None:
    """What it reads is the residual stream."""
    assert not list(inner_features(Anatomy(shared_model("llama")).head))
