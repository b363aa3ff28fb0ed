"""What the loss feels of units, against a slow loop."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.scores.taylor import taylor_score
from tests.scores.by_hand import random, rows_and_columns
from tests.sweep.helpers import shared_model
from tests.tiny import MODEL_TYPES


@pytest.mark.parametrize("kind", ["group", "neuron"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_taylor_scores_sum_over_all_weights_of_a_unit(model_type: str, kind: str) -> None:
    """A group has its query heads, not those of other groups; every weight counts once."""
    block = Anatomy(shared_model(model_type)).blocks[1]
    saliency = {
        site.weight_name: random(*site.module.weight.shape, seed=i).abs()
        for i, site in enumerate(block.sites)
    }
    expected = []
    for unit in range(block.units(kind)):
        total = 0.0
        for path, (axis, features) in rows_and_columns(model_type, kind, unit).items():
            part = saliency[f"{block.name}.{path}.weight"]
            part = part if axis == 0 else part.T
            total += float(part[sorted(features)].sum())
        expected.append(total)
    found = taylor_score(block, kind, saliency)
    assert found.shape == (block.units(kind),)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)
