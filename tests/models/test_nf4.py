"""Linears quantised to NF4, and QLoRA on them."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import nn

from lightning_prune.models import QLoRA
from lightning_prune.models.activations import checkpoint_activations
from lightning_prune.models.recovery.merge import merge
from lightning_prune.models.recovery.nf4 import NF4Linear
from lightning_prune.plan import Plan
from tests.models.test_sparse_lora import masked, trained
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model


def sparse_linear(dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, torch.Tensor]:
    """A Linear with a bias, every second of its weights zero, and where they are not."""
    torch.manual_seed(0)
    linear = nn.Linear(33, 7, dtype=dtype)
    keep_OI = torch.rand(7, 33) < 0.5
    linear.weight.data.mul_(keep_OI)
    return linear, keep_OI


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_are_exactly_zero_in_nf4(dtype: torch.dtype) -> None:
    """Zero is one of its sixteen values; so a masked weight stays masked."""
    linear, keep_OI = sparse_linear(dtype)
    weight_OI = NF4Linear(linear).linear(dtype).weight
    assert (weight_OI[~keep_OI] == 0).all()
    assert weight_OI.dtype == dtype
    assert 0 < (weight_OI - linear.weight).norm() / linear.weight.norm() < 0.15


@pytest.mark.parametrize("autocast", [False, True])
def test_it_computes_with_the_weight_that_the_bits_stand_for(autocast: bool) -> None:
    """Forward and backward, as a plain Linear of that weight does."""
    quantised = NF4Linear(sparse_linear()[0])
    plain = quantised.linear(torch.float32)
    x = torch.randn(2, 3, 33, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs = [module(x) for module in (quantised, plain)]
    torch.testing.assert_close(*outputs)
    gradients = [torch.autograd.grad(y.float().square().sum(), x)[0] for y in outputs]
    tolerance = {"rtol": 0.02, "atol": 0.02} if autocast else {}
    torch.testing.assert_close(*gradients, **tolerance)


def test_the_bits_are_those_of_bitsandbytes_and_survive_another_type_of_the_module() -> None:
    """Lightning's bf16-true converts every floating tensor, and must not convert the scales."""
    linear, _ = sparse_linear()
    packed, state = quantize_4bit(
        linear.weight.data, blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    quantised = NF4Linear(linear)
    quantised.to(torch.bfloat16)
    expected = dequantize_4bit(packed, state)
    torch.testing.assert_close(quantised.linear(torch.float32).weight.data, expected)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_linears_of_the_blocks_are_quantised_and_nothing_else(model_type: str) -> None:
    """Neither head nor embeddings; of the rest only the adapter is trained and saved."""
    model = tiny_model(model_type)
    adapted = QLoRA(r=2).attach(model)
    quantised = [name for name, m in adapted.named_modules() if isinstance(m, NF4Linear)]
    plain = [name for name, m in adapted.named_modules() if type(m) is nn.Linear]
    assert quantised
    assert all("layers." in name for name in quantised)
    assert all("lora_" in name or "lm_head" in name for name in plain)
    assert all("lora_" in name for name, p in adapted.named_parameters() if p.requires_grad)
    blocks = [n for n in adapted.state_dict() if "base_layer.weight" in n]
    assert not blocks


def test_a_linear_that_is_no_target_is_quantised_too_and_is_plain_after_merging() -> None:
    """Merging leaves a model that any library loads."""
    model, tokens = tiny_model("qwen2"), tiny_batch()
    adapted = trained(QLoRA(r=2, target_modules=["q_proj"]).attach(model)).eval()
    expected = adapted(tokens).logits
    merged = merge(adapted, Plan())
    assert not any(isinstance(module, NF4Linear) for module in merged.modules())
    torch.testing.assert_close(merged(tokens).logits, expected)


def test_unmasked_qlora_merges_to_what_was_trained() -> None:
    """On the quantised weights: the saved model is the validated one, up to rounding."""
    model, tokens = tiny_model("llama"), tiny_batch()
    dense = model(tokens).logits
    adapted = trained(QLoRA(r=2).attach(model)).eval()
    expected = adapted(tokens).logits
    merged = merge(adapted)(tokens).logits
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)
    assert (merged - dense).abs().max() > 0.1


def test_sharding_is_refused_before_the_model_is_pruned() -> None:
    """The bits are no parameters that FSDP2 could spread."""
    with pytest.raises(ValueError, match="QLoRA cannot be used with fsdp2.*strategy: ddp"):
        QLoRA().check(tiny_model("llama"), sharded=True)


def test_a_masked_model_trains_on_its_quantised_weights() -> None:
    """Every factor gets a gradient, with gradient checkpointing too."""
    model, tokens = tiny_model("llama"), tiny_batch()
    adapted = trained(QLoRA(r=2).attach(model, masked(model))).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            checkpoint_activations(model)
        adapted.zero_grad()
        adapted(tokens, labels=tokens).loss.backward()
        gradients.append({n: p.grad for n, p in adapted.named_parameters() if p.requires_grad})
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0].values())
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
