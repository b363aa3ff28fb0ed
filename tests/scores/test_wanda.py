"""Weights times norms, of each, of columns and of units, against slow loops."""

from __future__ import annotations

import statistics

import pytest
import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.scores.wanda import adaptive_score, column_score, unit_mean, wanda_score
from tests.scores.by_hand import random, rows_and_columns
from tests.sweep.helpers import shared_model
from tests.tiny import MODEL_TYPES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_wanda_scores_are_weights_times_norms(dtype: torch.dtype) -> None:
    """S_ij = |W_ij| · ||X_j||_2, in fp32 whatever the weight's type."""
    weight_OI, norm_I = random(3, 5).to(dtype), random(5, seed=1).abs() * 1e5
    score_OI = wanda_score(weight_OI, norm_I)
    assert score_OI.dtype == torch.float32
    for i in range(3):
        for j in range(5):
            expected = abs(float(weight_OI[i, j])) * float(norm_I[j])
            assert float(score_OI[i, j]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("levels", [None, 2])
def test_adaptive_scores_are_shares_of_the_rows_total(levels: int | None) -> None:
    """A score and all lower ones of its row, of equal ones those before it, by their sum."""
    score_OI = random(4, 7).abs() if levels is None else random(4, 7).sign() + 1
    found_OI = adaptive_score(score_OI)
    for i in range(4):
        row = score_OI[i].tolist()
        for j in range(7):
            lower = [x for k, x in enumerate(row) if (x, k) <= (row[j], j)]
            expected = sum(lower) / sum(row)
            assert float(found_OI[i, j]) == pytest.approx(expected, rel=1e-6)


def test_a_row_of_zeros_has_no_adaptive_score() -> None:
    """It goes first, and is not NaN."""
    assert not adaptive_score(torch.zeros(2, 3)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_column_scores_are_means_of_wandas(dtype: torch.dtype) -> None:
    """Mean over the rows of |W_ij| · ||X_j||, in fp32 whatever the weight's type."""
    weight_OI, norm_I = random(4, 6).to(dtype), random(6, seed=1).abs() * 1e5
    found_I = column_score(weight_OI, norm_I)
    assert found_I.dtype == torch.float32
    expected_I = (weight_OI.double().abs() * norm_I.double()).mean(dim=0).float()
    torch.testing.assert_close(found_I, expected_I)


@pytest.mark.parametrize("kind", ["group", "neuron"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_units_have_the_mean_of_their_own_columns(model_type: str, kind: str) -> None:
    """A group those of its query heads, whatever the size of a head; a neuron its one."""
    block = Anatomy(shared_model(model_type)).blocks[1]
    site = block.reader(kind).site
    score_I = random(site.module.in_features)
    found_U = unit_mean(block, kind, score_I)
    path = site.name.removeprefix(f"{block.name}.")
    for unit, found in enumerate(found_U.tolist()):
        axis, columns = rows_and_columns(model_type, kind, unit)[path]
        assert axis == 1
        expected = statistics.fmean(float(score_I[j]) for j in sorted(columns))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
