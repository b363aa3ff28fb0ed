"""The size of weights and of units, against slow loops."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.scores.magnitude import magnitude_score, unit_norm
from tests.scores.by_hand import random, rows_and_columns
from tests.sweep.helpers import shared_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_magnitude_scores_are_magnitudes(dtype: torch.dtype) -> None:
    """|W_ij| in fp32."""
    weight_OI = random(3, 5).to(dtype)
    score_OI = magnitude_score(weight_OI)
    assert score_OI.dtype == torch.float32
    assert score_OI.tolist() == [[abs(x) for x in row] for row in weight_OI.tolist()]


@pytest.mark.parametrize("kind", ["group", "neuron"])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("model_type", ["llama", "phi3", "opt"])
def test_unit_norms_are_of_all_weights_of_a_unit(model_type: str, power: int, kind: str) -> None:
    """Rows and columns alike, each weight once, biases not at all."""
    block = Anatomy(shared_model(model_type)).blocks[1]
    weights = {site.name: site.module.weight.detach() for site in block.sites}
    expected = []
    for unit in range(block.units(kind)):
        total = 0.0
        for path, (axis, features) in rows_and_columns(model_type, kind, unit).items():
            part = weights[f"{block.name}.{path}"].double()
            part = (part if axis == 0 else part.T)[sorted(features)]
            total += sum(abs(w) ** power for w in part.flatten().tolist())
        expected.append(total ** (1 / power))
    torch.testing.assert_close(unit_norm(block, kind, power), torch.tensor(expected))
