"""Training between rounds, on whatever the family's task reads."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune import Wanda, prune
from lightning_prune.pipeline import Recovery
from tests.contract.vit import registered
from tests.sweep.helpers import padded
from tests.tiny import tiny_classifier, tiny_images, tiny_model


def loss_of_images(model: nn.Module) -> torch.Tensor:
    batch = tiny_images()
    return F.cross_entropy(model(pixel_values=batch["pixel_values"]).logits, batch["labels"])


def test_a_step_is_that_of_adamw_on_the_next_tokens() -> None:
    """Bit for bit; padding asks for nothing."""
    model = tiny_model("llama")
    expected, batch = copy.deepcopy(model).train(), padded("right")
    optimizer = torch.optim.AdamW(expected.parameters(), 1e-3, weight_decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        mask_BT = batch["attention_mask"]
        logits = expected(input_ids=batch["input_ids"], attention_mask=mask_BT).logits
        asked = (mask_BT[:, 1:] != 0) & (mask_BT[:, :-1] != 0)
        target = batch["input_ids"][:, 1:].masked_fill(~asked, -100)
        flat = logits[:, :-1].flatten(0, 1), target.flatten()
        (F.cross_entropy(*flat, reduction="none").sum() / int(asked.sum())).backward()
        optimizer.step()
    Recovery(2, [batch], 1e-3)(model, None)
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert not model.training


def test_an_image_classifier_is_trained_on_its_classes() -> None:
    """The loss falls, and nothing asks for token ids."""
    model = tiny_classifier()
    before = loss_of_images(model)
    with registered():
        Recovery(4, [tiny_images()], 1e-3)(model, None)
    assert loss_of_images(model) < before


def test_there_has_to_be_text() -> None:
    """An empty list would be read again and again."""
    with pytest.raises(ValueError, match="there is no training text; pass a list of batches"):
        Recovery(1, [])(tiny_model("llama"), None)


def test_batches_that_are_missing_are_called_what_the_family_reads() -> None:
    """Token ids, or pixels."""
    with pytest.raises(ValueError, match=r"needs calibration batches: dicts with input_ids \(B, T"):
        prune(tiny_model("llama"), Wanda(sparsity=0.5))
    with registered():
        with pytest.raises(ValueError, match="needs calibration batches: dicts with pixel_values"):
            prune(tiny_classifier(), Wanda(sparsity=0.5))
        with pytest.raises(ValueError, match="calibration patches: pass batches, dicts with pixel"):
            prune(tiny_classifier(), Wanda(sparsity=0.5), [])
