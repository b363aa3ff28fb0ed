"""A classifier of texts: what needs its blocks alone prunes it; what needs a loss is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForSequenceClassification

from lightning_prune import (
    AFR,
    FLAP,
    OWL,
    SNIP,
    DropBlocks,
    GQATaylor,
    Magnitude,
    ReFer,
    SparseGPT,
    Taylor,
    Uniform,
    Wanda,
    prune,
)
from lightning_prune.methods.base import Method
from tests.tiny import tiny_batch


def classifier() -> nn.Module:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 24}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}
    config = LlamaConfig(**sizes, **heads, num_labels=3, pad_token_id=0)
    return LlamaForSequenceClassification(config).eval()


class Untouched:
    """Calibration batches that nobody may look at."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        raise AssertionError("refused too late")


@pytest.mark.parametrize(
    "method",
    [
        GQATaylor(ratio=0.25),
        Taylor(ratio=0.25),
        SNIP(ratio=0.25),
        AFR(ratio=0.25),
        ReFer(ratio=0.25),
        DropBlocks(count=1, measure="removal"),
    ],
    ids=lambda method: type(method).__name__,
)
def test_what_needs_a_loss_is_refused_before_any_calibration(method: Method) -> None:
    """With what to pass."""
    model = classifier()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = (
        r"LlamaForSequenceClassification has no head of AutoModelForCausalLM.*: pass what "
        r"AutoModelForCausalLM.from_pretrained gives, or take a method that reads weights or act"
    )
    with pytest.raises(ValueError, match=said) as caught:
        prune(model, method, Untouched())
    assert len(str(caught.value).splitlines()) == 1
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "method",
    [
        Magnitude(sparsity=0.5),
        Wanda(sparsity=0.5, allocation=OWL()),
        SparseGPT(sparsity=0.5),
        FLAP(ratio=0.25, allocation=Uniform()),
        DropBlocks(count=1),
    ],
    ids=lambda method: type(method).__name__,
)
def test_what_needs_the_blocks_alone_prunes_it(method: Method) -> None:
    """And the classifier still classifies."""
    model, ids_BT = classifier(), tiny_batch()
    before = model(ids_BT).logits
    plan = prune(model, method, [{"input_ids": ids_BT}])
    assert plan.removes_anything
    after = model(ids_BT).logits
    assert after.shape == before.shape
    assert after.isfinite().all()
    assert not torch.equal(after, before)
