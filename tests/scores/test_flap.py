"""FLAP's metrics of features, against their equations."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch

from lightning_prune.evidence import Moments
from lightning_prune.scores.flap import feature_score
from tests.scores.by_hand import random


@pytest.mark.parametrize("metric", ["WIFV", "WIFN", "IFV"])
def test_flaps_metrics_equal_their_equations(metric: Any) -> None:
    """Var(X_j) · Σ_i W_ij², mean over i of |W_ij| · ||X_j||, Var(X_j)."""
    rows = random(4, 6).double().tolist()
    of = Moments(*(random(6, seed=seed).double().abs() + 0.1 for seed in (1, 2, 3)))
    found_I = feature_score(metric, torch.tensor(rows), of)
    assert found_I.shape == (6,)
    for j in range(6):
        column = [row[j] for row in rows]
        expected = {
            "WIFV": float(of.variance_I[j]) * sum(w * w for w in column),
            "WIFN": statistics.fmean(abs(w) for w in column) * float(of.norm_I[j]),
            "IFV": float(of.variance_I[j]),
        }[metric]
        assert float(found_I[j]) == pytest.approx(expected, rel=1e-5)
