"""Units and blocks cut from an image classifier, by a table from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageClassification, ViTForImageClassification

from lightning_prune import (
    FLAP,
    Bias,
    DropBlocks,
    MagnitudeSP,
    Taylor,
    Uniform,
    WandaSP,
    prune,
)
from tests.contract.masked import masked
from tests.contract.vit import IMAGES, batches
from tests.tiny import tiny_classifier

pytestmark = pytest.mark.usefixtures("images_known")


@pytest.mark.parametrize(
    ("method", "stock"),
    [
        (MagnitudeSP(ratio=0.5, attention=False), True),
        (Taylor(ratio=0.5), True),
        (WandaSP(ratio=0.5, mlp=False, repair=None), True),
        (FLAP(ratio=0.5, allocation=Uniform(), repair=Bias()), True),
        (FLAP(ratio=0.5), False),
        (DropBlocks(count=1, part="attention", measure="removal"), False),
    ],
    ids=repr,
)
def test_a_cut_classifier_computes_what_the_masked_one_does(
    method: Any, stock: bool, tmp_path: Path
) -> None:
    """Heads and neurons; where blocks differ it has a class of its own; it loads again."""
    dense, model = tiny_classifier(), tiny_classifier()
    plan = prune(model, method, batches())
    before, after = (sum(p.numel() for p in one.parameters()) for one in (dense, model))
    assert after < before
    expected, pixels = masked(dense, model, plan), IMAGES["pixel_values"]
    with torch.no_grad():
        logits = model(pixel_values=pixels).logits
        masked_logits = expected(pixel_values=pixels).logits
        torch.testing.assert_close(logits, masked_logits, rtol=1e-4, atol=2e-5)
        model.save_pretrained(tmp_path)
        again = AutoModelForImageClassification.from_pretrained(tmp_path)
        torch.testing.assert_close(again(pixel_values=pixels).logits, logits)
    assert type(again) is type(model)
    assert (type(model) is ViTForImageClassification) is stock


def test_a_block_is_dropped_from_a_classifier() -> None:
    """The one that changes its rows least; the others compute what they did."""
    dense, model = tiny_classifier(), tiny_classifier()
    plan = prune(model, DropBlocks(count=1), batches())
    (gone,) = plan.dropped
    values = {int(index): value for index, value in plan.provenance["importance"].items()}
    assert gone == min(values, key=values.__getitem__)
    del dense.vit.layers[gone]
    with torch.no_grad():
        logits, expected = (
            one(pixel_values=IMAGES["pixel_values"]).logits for one in (model, dense)
        )
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    assert type(model) is ViTForImageClassification
    assert model.config.num_hidden_layers == 2
