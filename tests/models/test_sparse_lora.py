"""LoRA on masked weights: what is trained is what is merged, and no zero comes back."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.models import LoRA, QLoRA
from lightning_prune.models.recovery.merge import merge
from lightning_prune.models.recovery.sparse_lora import SparseLinear
from lightning_prune.models.recovery.student import plain
from lightning_prune.plan import Plan, joined
from lightning_prune.surgery import apply_masks, shrink
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, uneven_plan

ADAPTERS = {"lora": LoRA, "qlora": QLoRA}


def masked(model: nn.Module, pattern: bool = False, seed: int = 0) -> Plan:
    """Mask half of the weights of every Linear that is not empty, in place; 2:4 if asked for."""
    plan, generator = Plan(), torch.Generator().manual_seed(seed)
    for block in Anatomy(model).blocks:
        for site in block.sites:
            score_OI = torch.rand(site.module.weight.shape, generator=generator)
            keep_OI = score_OI < 0.5
            if pattern and score_OI.shape[1] % 4 == 0:
                order = score_OI.view(-1, 4).argsort(dim=1).argsort(dim=1)
                keep_OI = (order < 2).view(score_OI.shape)
            plan.set_mask(site.weight_name, keep_OI)
    apply_masks(model, plan)
    return plan


def trained(model: PeftModel, seed: int = 0) -> PeftModel:
    """The adapter as training might leave it."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(0.2 * noise)
    return model


def linear(keep_OI: torch.Tensor, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """One masked Linear with a bias and its adapter, in training mode."""
    torch.manual_seed(0)
    holder = nn.Sequential(nn.Linear(*reversed(keep_OI.shape), dtype=dtype))
    holder[0].weight.data.mul_(keep_OI)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["0"], **settings)
    config._register_custom_module({nn.Linear: partial(SparseLinear, keep_OI=keep_OI)})
    layer = inject_adapter_in_model(config, holder)[0]
    for factor in (layer.lora_A, layer.lora_B):
        nn.init.normal_(factor["default"].weight)
    return layer


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_merged_logits_are_bit_for_bit_those_of_the_adapter(model_type: str, kind: str) -> None:
    """With masks on every Linear, fused projections and biases among them; zeros stay."""
    model, tokens = tiny_model(model_type), tiny_batch()
    plan = masked(model)
    adapted = trained(ADAPTERS[kind](r=2).attach(model, plan)).eval()
    expected = adapted(tokens).logits
    merged = merge(adapted, plan)
    torch.testing.assert_close(merged(tokens).logits, expected, rtol=0, atol=0)
    for name in plan.mask_names:
        assert torch.equal(merged.get_parameter(name) != 0, plan.mask(name))


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_uneven_masked_model_merges_too(kind: str) -> None:
    """Blocks of other widths, one of them without attention and one without an MLP."""
    model, tokens = tiny_model("llama"), tiny_batch()
    plan = uneven_plan(model)
    plan.set_kept("group", 1, torch.tensor([], dtype=torch.long), 4)
    plan.set_kept("neuron", 0, torch.tensor([], dtype=torch.long), 22)
    shrink(Anatomy(model), plan)
    plan = joined(plan, masked(model))
    adapted = trained(ADAPTERS[kind](r=2).attach(model, plan)).eval()
    expected = adapted(tokens).logits
    merged = merge(adapted, plan)
    torch.testing.assert_close(merged(tokens).logits, expected, rtol=0, atol=0)
    for name in plan.mask_names:
        assert torch.equal(merged.get_parameter(name) != 0, plan.mask(name))


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_of_four_stays_two_of_four_in_every_type(dtype: torch.dtype, kind: str) -> None:
    """In bfloat16 the sum is rounded in training as it is in merging."""
    model, tokens = tiny_model("llama", dtype=dtype), tiny_batch()
    plan = masked(model, pattern=True)
    adapted = trained(ADAPTERS[kind](r=2).attach(model, plan)).eval()
    expected = adapted(tokens).logits
    merged = merge(adapted, plan)
    assert {p.dtype for p in merged.parameters()} == {dtype}
    torch.testing.assert_close(merged(tokens).logits, expected, rtol=0, atol=0)
    for name in plan.mask_names:
        weight_OI = merged.get_parameter(name)
        if weight_OI.shape[1] % 4 == 0:
            assert ((weight_OI.view(-1, 4) != 0).sum(dim=1) <= 2).all()


def test_peft_alone_revives_the_zeros() -> None:
    """Why there is a layer of our own: the plain update is dense, and so is what is merged."""
    model = tiny_model("llama")
    plan = masked(model)
    sites = [site.path for site in Anatomy(model).family.sites]
    adapted = trained(get_peft_model(model, LoraConfig(r=2, target_modules=sites)))
    merged = adapted.merge_and_unload(safe_merge=True)
    for name in plan.mask_names:
        assert (merged.get_parameter(name)[~plan.mask(name)] != 0).all()


def test_an_adapter_without_the_masks_cannot_be_merged_with_them() -> None:
    """Masking then would make another model than the one that was trained."""
    model = tiny_model("llama")
    plan = masked(model)
    adapted = trained(LoRA(r=2).attach(model))
    with pytest.raises(ValueError, match=r"after merging.*not zero: .*adapter attached without"):
        merge(adapted, plan)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_those_of_the_masked_sum(dropout: float, autocast: bool) -> None:
    """Against autograd on the formula, of inputs and of both factors."""
    keep_OI = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    layer = linear(keep_OI, lora_dropout=dropout)
    x = torch.randn(2, 4, 5, requires_grad=True)
    inputs = [x, layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    base = layer.get_base_layer()

    def by_hand() -> torch.Tensor:
        delta_OI = 2.0 * (inputs[2] @ inputs[1]) * keep_OI
        if not dropout:
            return nn.functional.linear(x, base.weight + delta_OI, base.bias)
        return base(x) + nn.functional.linear(layer.lora_dropout["default"](x), delta_OI)

    found = []
    for call in (lambda: layer(x), by_hand):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = call()
        found.append([y, *torch.autograd.grad(y.float().square().sum(), inputs)])
    for ours, expected in zip(*found, strict=True):
        error = (ours - expected).float().norm() / expected.float().norm()
        assert error < (0.02 if autocast else 1e-5)


def test_a_kept_weight_that_happens_to_be_zero_is_learnt() -> None:
    """Masks come from the plan, never from the weights."""
    layer = linear(torch.ones(4, 3, dtype=torch.bool))
    layer.get_base_layer().weight.data.zero_()
    layer.merge(safe_merge=True)
    assert (layer.get_base_layer().weight != 0).all()


def test_neither_the_sum_nor_a_mask_of_bytes_is_kept_for_the_backward_pass() -> None:
    """Only the inputs, the weight itself, the factors and the packed mask."""
    layer, sizes = linear(torch.ones(64, 32, dtype=torch.bool)), []
    x = torch.randn(2, 32)
    own = {p.data_ptr() for p in layer.parameters()} | {layer.keep_P.data_ptr(), x.data_ptr()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(0 if tensor.data_ptr() in own else tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    assert sizes
    assert sum(sizes) == 0


def test_only_masked_linears_get_a_masked_update_and_masks_are_not_saved() -> None:
    """The others are peft's own; a checkpoint holds what is trained."""
    model = tiny_model("llama")
    whole = masked(model)
    plan = Plan()
    for name in whole.mask_names[:3]:
        plan.set_mask(name, whole.mask(name))
    adapted = LoRA(r=2).attach(model, plan)
    sparse = [name for name, m in adapted.named_modules() if isinstance(m, SparseLinear)]
    assert len(sparse) == 3
    assert not any("keep" in name for name in adapted.state_dict())


def test_a_plan_of_another_model_is_refused_before_training() -> None:
    """By the first name or shape that does not fit."""
    plan = masked(tiny_model("llama", intermediate_size=24))
    with pytest.raises(ValueError, match="shape.*Was the plan made for another model"):
        LoRA(r=2).attach(tiny_model("llama"), plan)
    with pytest.raises(ValueError, match="no such weight"):
        LoRA(r=2).attach(tiny_model("opt"), plan)


def test_a_head_that_is_the_embeddings_is_no_target() -> None:
    """Merging its update would change the embeddings."""
    tied = tiny_model("llama", tie_word_embeddings=True)
    with pytest.raises(ValueError, match="'lm_head', whose weight is also that of the embeddings"):
        LoRA(target_modules=["lm_head", "q_proj"]).attach(tied)
    assert plain(LoRA(target_modules=["lm_head"]).attach(tiny_model("llama"))) is not None


def test_a_masked_head_is_trained_under_its_mask() -> None:
    """Where it is a target, as any Linear."""
    model, tokens, plan = tiny_model("llama"), tiny_batch(), Plan()
    plan.set_mask("lm_head.weight", torch.rand(64, 32) < 0.5)
    apply_masks(model, plan)
    adapted = trained(LoRA(r=2, target_modules=["lm_head"]).attach(model, plan)).eval()
    expected = adapted(tokens).logits
    merged = merge(adapted, plan)
    torch.testing.assert_close(merged(tokens).logits, expected, rtol=0, atol=0)
    assert torch.equal(merged.lm_head.weight != 0, plan.mask("lm_head.weight"))
