"""Greedy removal of whole units."""

from __future__ import annotations

import itertools

import pytest
import torch

from lightning_prune.repair import greedy_removal

OUTPUTS = 4


def problem(features: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (O, I) and a Gram matrix (I, I) of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    input_NI = torch.randn(60, features, generator=generator, dtype=torch.float64)
    input_NI = input_NI @ torch.randn(features, features, generator=generator).double()
    weight_OI = torch.randn(OUTPUTS, features, generator=generator, dtype=torch.float64)
    return weight_OI, input_NI.mT @ input_NI / 60


def best_error(weight_OI: torch.Tensor, gram_II: torch.Tensor, gone: list[int]) -> float:
    """||W - W'||² in the norm of the Gram matrix, W' the best weights without these features."""
    kept = [i for i in range(len(gram_II)) if i not in gone]
    right_OS = (weight_OI @ gram_II)[:, kept]
    new_OI = torch.zeros_like(weight_OI)
    if kept:
        new_OI[:, kept] = torch.linalg.solve(gram_II[kept][:, kept], right_OS.mT).mT
    change_OI = new_OI - weight_OI
    return float(((change_OI @ gram_II) * change_OI).sum())


@pytest.mark.parametrize("size", [1, 3])
def test_each_step_takes_what_costs_least(size: int) -> None:
    """By trying all that are left and solving for the others from scratch."""
    weight_OI, gram_II = problem(6 * size)
    gram_II.diagonal().add_(0.01 * gram_II.diagonal().mean())
    total = float(((weight_OI @ gram_II) * weight_OI).sum())
    gone: list[int] = []
    expected = {}
    for _ in range(6):
        trials = {
            unit: best_error(weight_OI, gram_II, gone + features(unit, size))
            for unit in range(6)
            if unit not in expected
        }
        unit = min(trials, key=lambda u: trials[u])
        gone += features(unit, size)
        expected[unit] = trials[unit] / total
    found = greedy_removal(weight_OI, gram_II, size, damping=1e-12)
    torch.testing.assert_close(
        found, torch.tensor([expected[u] for u in range(6)], dtype=torch.float64), rtol=1e-6, atol=0
    )


def features(unit: int, size: int) -> list[int]:
    return list(range(unit * size, (unit + 1) * size))


def test_several_at_a_time_hurt_little_where_units_are_unlike() -> None:
    """Without correlation, the order is the same however many go in one step."""
    weight_OI, _ = problem(20)
    gram_II = torch.diag(torch.rand(20, dtype=torch.float64) + 0.1)
    one, four = (greedy_removal(weight_OI, gram_II, per_step=n) for n in (1, 4))
    torch.testing.assert_close(one, four)
    assert float(one.max()) == pytest.approx(1)


def test_a_copy_goes_first_and_costs_nothing() -> None:
    """A unit that another one can stand in for."""
    weight_OI, gram_II = problem(5)
    copies = [0, 1, 2, 3, 4, 2]
    gram_II = gram_II[copies][:, copies]
    error_U = greedy_removal(torch.cat([weight_OI, weight_OI[:, :1]], 1), gram_II, damping=1e-9)
    assert int(error_U.argmin()) in (2, 5)
    assert float(error_U.min()) < 1e-6


def test_errors_rise_in_the_order_of_removal_and_end_at_all() -> None:
    """So that any number of units to remove is a prefix."""
    weight_OI, gram_II = problem(12)
    for size, per_step in itertools.product((1, 3), (1, 5)):
        error_U = greedy_removal(weight_OI, gram_II, size, per_step=per_step)
        assert error_U.sort().values.diff().ge(0).all()
        assert len(error_U) == 12 // size


def test_dead_inputs_are_no_error() -> None:
    """All zero, or some."""
    weight_OI, gram_II = problem(6)
    gram_II[2] = 0
    gram_II[:, 2] = 0
    assert int(greedy_removal(weight_OI, gram_II).argmin()) == 2
    assert greedy_removal(weight_OI, torch.zeros(6, 6)).isfinite().all()
