"""Relative importance, against a slow loop."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.scores.ria import ria_score


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_ria_scores_are_relative_importance_times_norms(dtype: torch.dtype, power: float) -> None:
    """(|W_ij| / column sum + |W_ij| / row sum) · norm^power, in fp32 whatever the weight's type."""
    generator = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(3, 5, generator=generator).to(dtype)
    norm_I = torch.rand(5, generator=generator) * 1e5
    score_OI = ria_score(weight_OI, norm_I, power)
    assert score_OI.dtype == torch.float32
    size = [[abs(x) for x in row] for row in weight_OI.tolist()]
    for i in range(3):
        for j in range(5):
            column, row = sum(size[k][j] for k in range(3)), sum(size[i])
            expected = (size[i][j] / column + size[i][j] / row) * float(norm_I[j]) ** power
            assert float(score_OI[i, j]) == pytest.approx(expected, rel=1e-5)


def test_features_of_zeros_have_no_importance() -> None:
    """And no NaN: neither a row, nor a column, nor an input of zeros."""
    weight_OI = torch.ones(3, 4)
    weight_OI[1] = weight_OI[:, 2] = 0
    score_OI = ria_score(weight_OI, torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert torch.equal(score_OI == 0, (weight_OI == 0) | (torch.arange(4) == 1))
