"""CFSP: the parts of a neuron in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune import CFSP, Uniform
from lightning_prune.anatomy import Anatomy
from lightning_prune.scores.cfsp import neuron_score
from tests.scores.by_hand import random
from tests.sweep.helpers import shared_model


@pytest.mark.parametrize("model_type", ["llama", "phi3", "opt"])
def test_cfsp_finds_the_rows_of_every_family(model_type: str) -> None:
    """Gate and up apart, in one matrix, or a single Linear that stands for both."""
    block = Anatomy(shared_model(model_type)).blocks[1]
    norm_U = random(22, seed=5).abs() + 0.1
    site = block.reader("neuron").site
    method = CFSP(ratio=0.5, allocation=Uniform())
    found_U = method.score(block, {site.table.reads: norm_U})["neuron"]
    paths = {
        "llama": ("mlp.gate_proj", "mlp.up_proj"),
        "phi3": ("mlp.gate_up_proj",),
        "opt": ("fc1",),
    }[model_type]
    rows = torch.cat([block.module.get_submodule(path).weight.detach() for path in paths])
    expected_U = neuron_score(
        "three_w_one_wa",
        "paper",
        site.module.weight.detach().T,
        [part.detach() for part in rows.split(22)],
        norm_U,
    )
    torch.testing.assert_close(found_U, expected_U)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "wanda"}, "CFSP: metric='wanda' .* one of 'three_w_one_wa', .*'mag_base'"),
        ({"formula": "book"}, "formula='book' .* one of 'paper', 'code'"),
        ({"b": -1.0}, "b=-1.0 is not allowed; a power of activation norms is 0 or more"),
        ({"c": float("inf")}, "c=inf is not allowed; a power"),
        ({"attention": True}, "CFSP scores MLP neurons only"),
    ],
)
def test_wrong_options_are_refused(settings: dict[str, Any], message: str) -> None:
    """With what is allowed."""
    with pytest.raises(ValueError, match=message):
        CFSP(ratio=0.5, **settings)
