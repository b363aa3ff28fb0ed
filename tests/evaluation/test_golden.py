"""Perplexities of a trained model, as the original codes measured them.

Dense, and with the masks that the authors' own code made; 32 windows of 128 tokens.
"""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lightning_prune.evaluation import perplexity
from tests.reference.stories import golden, stories, windows
from tests.shared import shared_path

MASKS = ("wanda_50", "wanda_2of4", "magnitude_50")


def masked(name: str) -> nn.Module:
    """The model with the zeros that the original code made."""
    model = stories()
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for weight_name, keep in golden(name).items():
            weights[weight_name].mul_(keep.bool())
    return model


@pytest.mark.parametrize("size", [1, 5, 32])
def test_the_dense_model_has_the_perplexity_of_the_originals(size: int) -> None:
    """Whatever the batch size; the original takes one window at a time."""
    assert perplexity(stories(), windows("evaluation", size)) == pytest.approx(4.2879701, rel=1e-4)


@pytest.mark.parametrize("name", MASKS)
def test_a_pruned_model_has_the_perplexity_of_the_originals(name: str) -> None:
    """With their masks, their figure."""
    expected = json.loads(shared_path("golden/results.json").read_text())[name]["ppl"]
    found = perplexity(masked(name), windows("evaluation", 8))
    assert found == pytest.approx(expected, rel=1e-4)
