"""Shares by trial: what the halves of each site cost its block, and the split that follows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_prune import Sensitivity, SparseGPT, Wanda, WandaSP, prune
from lightning_prune.allocation.sensitivity import HalfMasked
from lightning_prune.anatomy import Anatomy
from tests.contract.cases import batches, even_model
from tests.sweep.helpers import shared_model

ERRORS, SIZES = [0.4, 0.01, 0.1, 0.02], [100, 300, 100, 50]


def mean(shares: list[float], sizes: list[int]) -> float:
    return sum(s * n for s, n in zip(shares, sizes, strict=True)) / sum(sizes)


def test_a_trial_zeroes_the_lower_half_of_every_row() -> None:
    """By |W|·||X||, row by row."""
    site = Anatomy(shared_model("llama")).blocks[0].sites[0]
    norm_I = torch.rand(32, generator=torch.Generator().manual_seed(0))
    changed_OI = HalfMasked().changed(site, norm_I)
    for row, new in zip(site.module.weight.detach(), changed_OI, strict=True):
        scores = (row.abs() * norm_I).tolist()
        gone = sorted(range(32), key=lambda i, scores=scores: scores[i])[:16]
        expected = [0.0 if i in gone else w for i, w in enumerate(row.tolist())]
        assert new.tolist() == expected


@pytest.mark.parametrize("budget", [0.1, 0.5, 0.9])
def test_the_budget_is_met_by_size(budget: float) -> None:
    """Within the limits."""
    shares = Sensitivity().shares(budget, SIZES, ERRORS)
    assert mean(shares, SIZES) == pytest.approx(budget, abs=1e-9)
    assert all(0 <= share <= 0.95 for share in shares)


def test_shares_follow_their_equation() -> None:
    """c - ln(e / n) / steepness, where nothing is clipped."""
    shares = Sensitivity(steepness=12.0).shares(0.5, SIZES, ERRORS)
    wished = [-math.log(e / n) / 12 for e, n in zip(ERRORS, SIZES, strict=True)]
    assert all(0 < share < 0.95 for share in shares)
    gaps = [share - wish for share, wish in zip(shares, wished, strict=True)]
    assert gaps == pytest.approx([gaps[0]] * 4)


def test_a_site_without_an_error_is_like_the_best_of_the_others() -> None:
    """Its logarithm would be infinite; and where none has an error, all are alike."""
    equal = Sensitivity().shares(0.5, [100, 100, 100], [0.0, 0.1, 0.1])
    assert equal == pytest.approx([0.5, 0.5, 0.5])
    assert Sensitivity().shares(0.5, [100, 100], [0.0, 0.0]) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("propagate", ["block", "layer", "none"])
@pytest.mark.parametrize("cls", [Wanda, SparseGPT])
def test_every_site_loses_its_own_share(cls: Any, propagate: Any) -> None:
    """Measured on the dense model, whatever the method sees afterwards; the budget is met."""
    plan = prune(
        even_model("llama"),
        cls(sparsity=0.5, scope="row", propagate=propagate, allocation=Sensitivity(windows=2)),
        batches(),
    )
    again = prune(
        even_model("llama"),
        Wanda(sparsity=0.5, propagate="none", allocation=Sensitivity(windows=2)),
        batches(),
    )
    found = {name: plan.sparsity(name) for name in plan.mask_names}
    assert found == {name: again.sparsity(name) for name in plan.mask_names}
    assert len(set(found.values())) > 3
    assert plan.sparsity() == pytest.approx(0.5, abs=0.03)  # whole numbers a row


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"steepness": 0.0},
            "Sensitivity: steepness=0.0 is not allowed; it is above 0",
        ),
        ({"windows": 0}, "windows=0 is not allowed; it is 1 or more calibration windows"),
        ({"max_share": 1.0}, r"max_share=1.0 is not allowed; it is in \(0, 1\)"),
    ],
)
def test_arguments_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    """With what is allowed."""
    with pytest.raises(ValueError, match=message):
        Sensitivity(**settings)


def test_units_cannot_be_shared_out_by_site() -> None:
    """They reach over several."""
    with pytest.raises(
        ValueError, match=r"allocation=Sensitivity\(\) shares among single matrices"
    ):
        WandaSP(ratio=0.5, allocation=Sensitivity())
