"""The best weights on a support, against a solver that takes one row at a time."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.selection import keep_per_matrix, keep_per_row
from tests.repair.problems import LINEARS, golden, random_layer, refit, relative_error

EXACT = {"damping": 0.0, "dtype": torch.float64, "tolerance": 1e-12, "steps": 1000}


def slow_refit(output_TO, input_TI, keep_OI):
    """One least-squares problem per output feature, on the inputs that stay."""
    new_OI = torch.zeros_like(keep_OI, dtype=torch.float64)
    for o, keep_I in enumerate(keep_OI):
        solved = torch.linalg.lstsq(input_TI[:, keep_I], output_TO[:, o : o + 1], driver="gelsd")
        new_OI[o, keep_I] = solved.solution[:, 0]
    return new_OI


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 9), (6, 40), (3, 171)], ids=str)
def test_equals_least_squares_row_by_row(shape: tuple[int, int]) -> None:
    """Supports of different sizes, one of them empty."""
    weight_OI, input_TI = random_layer(*shape)
    keep_OI = keep_per_matrix(weight_OI.abs(), 0.5)
    keep_OI[-1] = shape[0] == 1
    new_OI = refit(weight_OI, keep_OI, input_TI.T @ input_TI, **EXACT)
    torch.testing.assert_close(new_OI, slow_refit(input_TI @ weight_OI.T, input_TI, keep_OI))


def test_aims_at_the_outputs_of_other_inputs() -> None:
    """With the cross Gram matrix, pruned inputs are made to give the dense layer's output."""
    weight_OI, input_TI = random_layer(5, 24)
    dense_TI = input_TI + 0.3 * random_layer(5, 24, seed=1)[1]
    keep_OI = keep_per_row(weight_OI.abs(), 0.5)
    target_OI = weight_OI @ (dense_TI.T @ input_TI)
    new_OI = refit(weight_OI, keep_OI, input_TI.T @ input_TI, target_OI, **EXACT)
    torch.testing.assert_close(new_OI, slow_refit(dense_TI @ weight_OI.T, input_TI, keep_OI))


def test_damping_is_a_pull_to_the_dense_weights() -> None:
    """As rows of sqrt(ridge) I added below the inputs, with the dense weights' own outputs."""
    weight_OI, input_TI = random_layer(5, 24)
    dense_TI = input_TI + 0.3 * random_layer(5, 24, seed=1)[1]
    keep_OI = keep_per_row(weight_OI.abs(), 0.5)
    gram_II = input_TI.T @ input_TI
    pull_II = (0.1 * gram_II.diagonal().mean()).sqrt() * torch.eye(24).double()
    new_OI = refit(
        weight_OI,
        keep_OI,
        gram_II,
        weight_OI @ (dense_TI.T @ input_TI),
        **{**EXACT, "damping": 0.1},
    )
    output_TO = torch.cat([dense_TI, pull_II]) @ weight_OI.T
    torch.testing.assert_close(
        new_OI, slow_refit(output_TO, torch.cat([input_TI, pull_II]), keep_OI)
    )


def test_keeping_everything_changes_nothing() -> None:
    """The dense weights fit their own output."""
    weight_OI, input_TI = random_layer(4, 30)
    weight_OI = weight_OI.float()
    new_OI = refit(weight_OI, torch.ones(4, 30).bool(), input_TI.T @ input_TI)
    torch.testing.assert_close(new_OI, weight_OI)


@pytest.mark.parametrize("linear", LINEARS)
def test_every_step_lowers_the_error(linear: str) -> None:
    """However few steps are taken, the result is no worse than the start; few are needed."""
    weight_OI = golden("alps_linear")[f"{linear}.dense"]
    gram_II = golden("alps_linear")[f"{linear}.gram_fp64"]
    keep_OI = keep_per_row(weight_OI.abs(), 0.6)
    errors = [
        relative_error(
            weight_OI, refit(weight_OI, keep_OI, gram_II, damping=0, steps=steps), gram_II
        )
        for steps in (0, 1, 2, 4, 8, 16, 32, 64)
    ]
    assert all(b <= a * (1 + 1e-6) for a, b in zip(errors, errors[1:], strict=False))
    assert errors[1] < 0.95 * errors[0]
    torch.testing.assert_close(errors[5], errors[-1], rtol=1e-3, atol=0)


def test_a_good_start_is_not_spoilt() -> None:
    """Begun at the solution, it stays there."""
    weight_OI, input_TI = random_layer(4, 30)
    keep_OI = keep_per_row(weight_OI.abs(), 0.5)
    gram_II = input_TI.T @ input_TI
    solved_OI = refit(weight_OI, keep_OI, gram_II, **EXACT)
    again_OI = refit(
        weight_OI, keep_OI, gram_II, start_OI=solved_OI, damping=0, dtype=torch.float64
    )
    torch.testing.assert_close(again_OI, solved_OI)


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_dead_inputs_keep_their_weights(damping: float) -> None:
    """What no calibration token has seen is left as it was; the rest is solved without it."""
    weight_OI, input_TI = random_layer(4, 20)
    weight_OI = weight_OI.float()
    input_TI[:, [0, 7]] = 0
    keep_OI = keep_per_row(weight_OI.abs(), 0.5)
    keep_OI[:, 0], keep_OI[:, 7] = True, False
    new_OI = refit(weight_OI, keep_OI, input_TI.T @ input_TI, damping=damping)
    torch.testing.assert_close(new_OI[:, 0], weight_OI[:, 0])
    assert torch.equal(new_OI != 0, keep_OI)


def test_half_precision_weights_are_solved_in_fp32() -> None:
    """The result is fp32, for the caller to round once."""
    weight_OI, input_TI = random_layer(4, 20)
    keep_OI = keep_per_row(weight_OI.abs(), 0.5)
    gram_II = input_TI.T @ input_TI
    new_OI = refit(weight_OI.bfloat16(), keep_OI, gram_II)
    assert new_OI.dtype == torch.float32
    assert torch.equal(new_OI, refit(weight_OI.bfloat16().float(), keep_OI, gram_II))


def test_nan_is_refused() -> None:
    """Before anything is solved."""
    with pytest.raises(ValueError, match="NaN or infinity"):
        refit(torch.ones(2, 3), torch.ones(2, 3).bool(), torch.full((3, 3), float("nan")))


def test_relative_error_is_that_of_the_outputs() -> None:
    """||X(W - W')||² / ||XW||², in whatever scale the Gram matrix comes."""
    weight_OI, input_TI = random_layer(4, 20)
    new_OI = weight_OI * (weight_OI > 0)
    expected = (input_TI @ (weight_OI - new_OI).T).square().sum()
    expected /= (input_TI @ weight_OI.T).square().sum()
    found = relative_error(weight_OI, new_OI, 3 * input_TI.T @ input_TI)
    torch.testing.assert_close(found, expected)
    assert relative_error(weight_OI, weight_OI, input_TI.T @ input_TI) == 0
