"""CFSP's local metrics, against their equations."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch

from lightning_prune.scores.cfsp import neuron_score, relative
from tests.scores.by_hand import random


def weight(rows: int, columns: int, seed: int = 0) -> list[list[float]]:
    return random(rows, columns, seed=seed).double().tolist()


def shares(rows: list[list[float]], formula: str) -> list[list[float]]:
    """|A| of neuron u and feature d over its sum along neurons (paper) or features (code)."""
    if formula == "code":
        return [[abs(a) / sum(map(abs, row)) for a in row] for row in rows]
    totals = [sum(abs(row[d]) for row in rows) for d in range(len(rows[0]))]
    return [[abs(a) / totals[d] for d, a in enumerate(row)] for row in rows]


@pytest.mark.parametrize("formula", ["paper", "code"])
@pytest.mark.parametrize(("b", "c"), [(1.0, 1.0), (0.5, 2.0), (0.0, 0.0)])
def test_cfsps_metrics_equal_their_equations(b: float, c: float, formula: Any) -> None:
    """The table in the docstring of the module, number by number."""
    down, up, gate = weight(7, 4), weight(7, 4, seed=1), weight(7, 4, seed=2)
    norm = (random(7, seed=3).double().abs() + 0.1).tolist()
    heard = [[w * x**b for w in row] for row, x in zip(down, norm, strict=True)]
    n_down, n_heard, n_up, n_gate = (shares(part, formula) for part in (down, heard, up, gate))
    for u, x in enumerate(norm):
        rest = statistics.fmean(n_up[u]) + statistics.fmean(n_gate[u])
        expected = {
            "three_w_one_wa": (statistics.fmean(n_heard[u]) + rest) * x**c,
            "three_w_one_a": (statistics.fmean(n_down[u]) + rest) * x**c,
            "one_wa": statistics.fmean(n_heard[u]) * x**c,
            "one_a": statistics.fmean(n_down[u]) * x**0.5,
            "wanda_base": statistics.fmean(abs(w) for w in down[u]) * x,
            "mag_base": sum(w * w for w in down[u]) ** 0.5,
        }
        for metric, value in expected.items():
            found_U = neuron_score(
                metric,  # type: ignore[arg-type]
                formula,
                torch.tensor(down).double(),
                [torch.tensor(up).double(), torch.tensor(gate).double()],
                torch.tensor(norm).double(),
                b,
                c,
            )
            assert found_U.shape == (7,)
            assert float(found_U[u]) == pytest.approx(value, rel=1e-6), metric


@pytest.mark.parametrize("formula", ["paper", "code"])
def test_weights_of_zero_have_a_relative_size_of_zero(formula: Any) -> None:
    """A dead neuron, or a feature that no neuron writes, is not 0/0."""
    weight_UD = random(5, 3)
    weight_UD[2], weight_UD[:, 1] = 0, 0
    found_UD = relative(weight_UD, formula)
    assert torch.isfinite(found_UD).all()
    assert not found_UD[2].any()
    assert not found_UD[:, 1].any()
