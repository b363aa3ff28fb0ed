"""Whole blocks, whole attentions and whole MLPs taken out of a model."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints.load import load
from lightning_prune.export.hf import save
from lightning_prune.plan import Plan
from lightning_prune.surgery import add_biases, apply, mask_units, shrink
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, tiny_plan

PARTS = {"block": "block", "attention": "group", "mlp": "neuron"}


def dropping(model: nn.Module, part: str, *blocks: int) -> Plan:
    """A plan that takes a part out of some blocks."""
    plan = Plan()
    for block in Anatomy(model).blocks:
        kind, total = PARTS[part], block.units(PARTS[part])
        kept = [] if block.index in blocks else list(range(total))
        plan.set_kept(kind, block.index, torch.tensor(kept), total)
    return plan


def bypassed(model: nn.Module, part: str, *blocks: int) -> torch.Tensor:
    """Logits of the dense model where these parts add nothing."""
    model = copy.deepcopy(model)
    for index in blocks:
        block = Anatomy(model).blocks[index]
        if part == "block":
            block.module.forward = lambda hidden, *args, **kwargs: hidden
        for site in block.sites:
            if site.table.columns == {"attention": "query", "mlp": "neuron"}.get(part):
                site.module.weight.data.zero_()  # a bias stays: it belongs to no unit
    with torch.no_grad():
        return model(tiny_batch(), use_cache=False).logits


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_is_left_computes_what_it_did(model_type: str, part: str) -> None:
    """Any block, the first and several; the biases behind attention and MLP stay."""
    dense = tiny_model(model_type)
    for blocks in ((0,), (1,), (0, 2)):
        model = copy.deepcopy(dense)
        shrink(Anatomy(model), dropping(model, part, *blocks))
        with torch.no_grad():
            torch.testing.assert_close(
                model(tiny_batch(), use_cache=False).logits,
                bypassed(dense, part, *blocks),
                rtol=1e-4,
                atol=1e-5,
            )
        if part == "block":
            assert len(Anatomy(model).blocks) == model.config.num_hidden_layers == 3 - len(blocks)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_cache_has_no_gaps(model_type: str, part: str) -> None:
    """Generating with it gives the same tokens as without, beyond a sliding window too."""
    model = tiny_model(model_type)
    shrink(Anatomy(model), dropping(model, part, 0))
    prompt = tiny_batch(1, 6)
    with_cache, without_cache = (
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=8,
            min_new_tokens=8,
            do_sample=False,
            use_cache=use,
        )
        for use in (True, False)
    )
    assert with_cache.tolist() == without_cache.tolist()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_it_loads_again(model_type: str, part: str, tmp_path: Path) -> None:
    """As a stock model where only blocks are gone."""
    model = tiny_model(model_type)
    shrink(Anatomy(model), dropping(model, part, 1))
    assert (model.config.model_type == model_type) == (part == "block")
    save(model, tmp_path / "saved")
    again = load(tmp_path / "saved")
    with torch.no_grad():
        torch.testing.assert_close(again(tiny_batch()).logits, model(tiny_batch()).logits)
    assert type(again) is type(model)


@pytest.mark.parametrize("part", PARTS)
def test_what_is_left_can_be_cut_and_masked(part: str) -> None:
    """By plans that number blocks as they are now; together they are one of the dense model."""
    dense = tiny_model("qwen3")
    model = copy.deepcopy(dense)
    first, second = dropping(model, part, 0), Plan()
    shrink(Anatomy(model), first)
    last = Anatomy(model).blocks[-1]
    second.set_kept("neuron", last.index, torch.arange(5), last.width)
    shrink(Anatomy(model), second)
    site = Anatomy(model).blocks[-1].sites[0]
    third = Plan()
    third.set_mask(site.weight_name, torch.rand(site.module.weight.shape) > 0.5)
    apply(Anatomy(model), third)
    together = first.then(second).then(third)
    assert together.kept("neuron", 2).tolist() == list(range(5))
    apply(Anatomy(dense), together)
    for name, tensor in model.state_dict().items():
        assert torch.equal(dense.state_dict()[name], tensor), name


def test_a_model_keeps_a_block() -> None:
    """Refused, and nothing is changed."""
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="takes all 3 blocks out of the model; one must stay"):
        shrink(Anatomy(model), dropping(model, "block", 0, 1, 2))
    assert len(Anatomy(model).blocks) == 3


@pytest.mark.parametrize("part", PARTS)
def test_masking_computes_the_same(part: str) -> None:
    """Also with one key/value head, tied embeddings, and biases behind attention and MLP."""
    for model in (
        tiny_model("llama", num_key_value_heads=1, tie_word_embeddings=True),
        tiny_model("opt"),
        tiny_model("gemma3_text"),
    ):
        plan, masked = dropping(model, part, 1), copy.deepcopy(model)
        shrink(Anatomy(model), plan)
        mask_units(Anatomy(masked), plan)
        with torch.no_grad():
            torch.testing.assert_close(
                model(tiny_batch()).logits, masked(tiny_batch()).logits, rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("part", ["attention", "mlp"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_attention_or_every_mlp_may_go(model_type: str, part: str, tmp_path: Path) -> None:
    """The stock class takes no counts of zero, so the model gets its own."""
    model = tiny_model(model_type)
    shrink(Anatomy(model), dropping(model, part, 0, 1, 2))
    again = load(save(model, tmp_path / "saved"))
    assert type(again) is type(model)
    with torch.no_grad():
        torch.testing.assert_close(again(tiny_batch()).logits, model(tiny_batch()).logits)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_model_is_stock_again_when_its_odd_block_goes(model_type: str, tmp_path: Path) -> None:
    """What was cut from that block alone is forgotten."""
    model = tiny_model(model_type)
    shrink(Anatomy(model), tiny_plan(model, group={1: []}, neuron={1: [0, 3]}))
    shrink(Anatomy(model), tiny_plan(model, neuron={1: [1]}))
    attention = Anatomy(model).blocks[1].module.self_attn
    assert type(attention).__name__.count("Silent") == 1
    shrink(Anatomy(model), dropping(model, "block", 1))
    assert model.config.model_type == model_type
    again = load(save(model, tmp_path / "saved"))
    with torch.no_grad():
        torch.testing.assert_close(again(tiny_batch()).logits, model(tiny_batch()).logits)


def test_what_is_empty_is_not_trained() -> None:
    """Every parameter that asks for a gradient gets one, as wrappers such as DDP expect."""
    model = tiny_model("opt")
    shrink(Anatomy(model), tiny_plan(model, group={0: []}, neuron={1: []}))
    model(tiny_batch(), labels=tiny_batch()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.numel() > 0) == (parameter.grad is not None), (
            name
        )


def test_the_config_follows() -> None:
    """Each block keeps its own kind of attention; lists that are as long by chance are left."""
    model = tiny_model("gemma2")
    before = list(model.config.layer_types)
    add_biases(Anatomy(model), ["self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"])
    shrink(Anatomy(model), dropping(model, "block", 0))
    assert model.config.layer_types == before[1:]
    assert len(model.config.pruned_biases) == 3
    attention = [block.module.self_attn for block in Anatomy(model).blocks]
    assert [one.layer_idx for one in attention] == [0, 1]


def test_the_first_block_with_a_window_is_counted_anew() -> None:
    """Qwen names it by number."""
    model = tiny_model(
        "qwen3", num_hidden_layers=5, use_sliding_window=True, sliding_window=4, max_window_layers=3
    )
    shrink(Anatomy(model), dropping(model, "block", 1, 3))
    assert model.config.max_window_layers == 2
    assert model.config.layer_types == ["full_attention"] * 2 + ["sliding_attention"]
