"""Elimination with correction, against the paper's loops and the original code."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.repair import factored, hessian_factor, obs_prune, saliency
from lightning_prune.selection import (
    Pattern,
    keep_above_threshold,
    keep_n_of_m,
    keep_per_matrix,
    keep_per_row,
)
from tests.repair.problems import (
    COLUMNS,
    by_saliency,
    golden,
    obs_update,
    random_layer,
    stories,
)

SHAPES = [(1, 1), (1, 9), (5, 1), (6, 40), (3, 172), (2, 300)]
RULES = {
    "half": (lambda score_OI: keep_per_matrix(score_OI, 0.5), 128),
    "few columns": (lambda score_OI: keep_per_matrix(score_OI, 0.3), 12),
    "rows": (lambda score_OI: keep_per_row(score_OI, 0.7), 64),
    "one column": (lambda score_OI: keep_per_matrix(score_OI, 0.5), 1),
    "wider than the layer": (lambda score_OI: keep_per_row(score_OI, 0.5), 1000),
}


def damped(gram_II: torch.Tensor, damping: float = 0.01) -> torch.Tensor:
    return gram_II + damping * gram_II.diagonal().mean() * torch.eye(len(gram_II)).to(gram_II)


def slow_obs(weight_OI, gram_II, keep, columns, damping=0.01):
    """Algorithm 1 of the paper, column by column, in float64, with U from the inverse itself."""
    weight_OI = weight_OI.double().clone()
    upper_II = torch.linalg.cholesky(
        torch.linalg.inv(damped(gram_II.double(), damping)), upper=True
    )
    width = weight_OI.shape[1]
    keep_OI = torch.zeros_like(weight_OI, dtype=torch.bool)
    for j in range(width):
        if j % columns == 0:
            part = slice(j, min(j + columns, width))
            score_OB = weight_OI[:, part] ** 2 / upper_II.diagonal()[part] ** 2
            keep_OI[:, part] = keep(score_OB)
        for o in range(len(weight_OI)):
            if not keep_OI[o, j]:
                removed = weight_OI[o, j] / upper_II[j, j]
                weight_OI[o, j:] -= removed * upper_II[j, j:]
                weight_OI[o, j] = 0
    return weight_OI, keep_OI


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_papers_loop(shape: tuple[int, int], rule: str) -> None:
    """Blocks, tiles and halves change nothing, at widths that none divides."""
    weight_OI, input_TI = random_layer(*shape)
    keep, columns = RULES[rule]
    gram_II = input_TI.T @ input_TI
    factor = hessian_factor(gram_II, dtype=torch.float64)
    new_OI, keep_OI = obs_prune(weight_OI, factor, by_saliency(keep), columns)
    slow_OI, slow_keep_OI = slow_obs(weight_OI, gram_II, keep, columns)
    assert torch.equal(keep_OI, slow_keep_OI)
    torch.testing.assert_close(new_OI, slow_OI)


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:3"])
def test_patterns_equal_the_papers_loop(pattern: str) -> None:
    """Each group is chosen from the weights as corrected by the removals before it."""
    form = Pattern.parse(pattern)
    weight_OI, input_TI = random_layer(4, 56 * form.group)
    gram_II = input_TI.T @ input_TI

    def keep(score_OI: torch.Tensor) -> torch.Tensor:
        return keep_n_of_m(score_OI, form)

    factor = hessian_factor(gram_II, dtype=torch.float64)
    new_OI, keep_OI = obs_prune(weight_OI, factor, by_saliency(keep), form.group)
    slow_OI, slow_keep_OI = slow_obs(weight_OI, gram_II, keep, form.group)
    assert torch.equal(keep_OI, slow_keep_OI)
    torch.testing.assert_close(new_OI, slow_OI)
    assert (keep_OI.view(4, 56, form.group).sum(-1) == form.kept).all()


def test_each_removal_is_answered_by_least_squares() -> None:
    """A definition without U: the columns still free always fit the output best."""
    weight_OI, input_TI = random_layer(5, 24)
    keep_OI = keep_per_row(weight_OI.abs(), 0.5)
    hessian_II = damped(input_TI.T @ input_TI)
    expected_OI = weight_OI.clone()
    for j in range(24):
        expected_OI[~keep_OI[:, j], j] = 0
        change_OJ = (expected_OI - weight_OI)[:, : j + 1]
        answer_OK = (
            change_OJ @ hessian_II[: j + 1, j + 1 :] @ hessian_II[j + 1 :, j + 1 :].inverse()
        )
        expected_OI[:, j + 1 :] = weight_OI[:, j + 1 :] - answer_OK
    factor = hessian_factor(input_TI.T @ input_TI, dtype=torch.float64)
    torch.testing.assert_close(obs_update(weight_OI, keep_OI, factor), expected_OI)


@pytest.mark.parametrize("name", ["50", "50_bs32", "2of4", "4of8"])
def test_equals_the_original_code(name: str) -> None:
    """IST-DASLab/sparsegpt 147d215 on the first block of a trained Llama: weights and zeros."""
    columns = {**COLUMNS, "50_bs32": 32, "4of8": 8}[name]

    def keep(score_OB: torch.Tensor) -> torch.Tensor:
        if columns >= 32:
            return keep_above_threshold(score_OB, 0.5)
        if score_OB.shape[1] < columns:  # it removes the whole of a last group that is too short
            return torch.zeros_like(score_OB, dtype=torch.bool)
        return keep_n_of_m(score_OB, Pattern(columns // 2, columns))

    for site, gram_II in golden("sparsegpt_H_layer0").items():
        new_OI, keep_OI = obs_prune(
            stories()[site], hessian_factor(gram_II), by_saliency(keep), columns
        )
        expected_OI = golden(f"sparsegpt_{name}")[site]
        assert torch.equal(keep_OI, expected_OI != 0)
        torch.testing.assert_close(new_OI, expected_OI, rtol=1e-4, atol=1e-5)


def test_what_goes_is_zero_and_what_stays_was_chosen() -> None:
    """The mask returned is the one asked for, and zeros are exactly where it says."""
    weight_OI, input_TI = random_layer(6, 172)
    wanted_OI = keep_per_row(weight_OI.abs(), 0.6)
    factor = hessian_factor((input_TI.T @ input_TI).float())
    new_OI, keep_OI = obs_prune(weight_OI, factor, lambda w, d, columns: wanted_OI[:, columns])
    assert torch.equal(keep_OI, wanted_OI)
    assert torch.equal(new_OI != 0, wanted_OI)
    assert torch.equal(new_OI, obs_update(weight_OI, wanted_OI, factor))


def test_keeping_everything_changes_nothing() -> None:
    """Bit for bit."""
    weight_OI, input_TI = random_layer(6, 172)
    weight_OI = weight_OI.float()
    factor = hessian_factor(input_TI.T @ input_TI)
    assert torch.equal(obs_update(weight_OI, torch.ones(6, 172).bool(), factor), weight_OI)


def test_selection_is_asked_from_left_to_right() -> None:
    """Every column once, as many at a time as asked for, with its part of U's diagonal."""
    weight_OI, input_TI = random_layer(3, 172)
    factor = hessian_factor(input_TI.T @ input_TI, dtype=torch.float64)
    asked: list[tuple[int, int]] = []

    def select(weight_OB: torch.Tensor, diagonal_B: torch.Tensor, columns: slice) -> torch.Tensor:
        asked.append((columns.start, columns.stop))
        torch.testing.assert_close(diagonal_B, factor.diagonal_I[columns])
        return torch.ones_like(weight_OB, dtype=torch.bool)

    obs_prune(weight_OI, factor, select, columns=50)
    assert asked == [(0, 50), (50, 100), (100, 150), (150, 172)]


def test_saliency_is_the_error_that_a_removal_costs() -> None:
    """With all before it fixed and all behind it free, as equation 5 has it."""
    weight_OI, input_TI = random_layer(2, 8)
    hessian_II = damped(input_TI.T @ input_TI)
    factor = hessian_factor(input_TI.T @ input_TI, dtype=torch.float64)
    keep_OI = torch.ones(2, 8).bool()
    keep_OI[:, 5] = False
    change_OI = obs_update(weight_OI, keep_OI, factor) - weight_OI
    cost_O = ((change_OI @ hessian_II) * change_OI).sum(dim=1)
    torch.testing.assert_close(cost_O, saliency(weight_OI, factor.diagonal_I)[:, 5])


def test_stacked_matrices_are_solved_as_if_alone() -> None:
    """Rows know nothing of each other once the mask is chosen."""
    weight_OI, input_TI = random_layer(9, 40)
    keep_OI = keep_per_row(weight_OI.abs(), 0.5)
    factor = hessian_factor(input_TI.T @ input_TI, dtype=torch.float64)
    alone = [
        obs_update(part_OI, part_keep_OI, factor)
        for part_OI, part_keep_OI in zip(weight_OI.split(4), keep_OI.split(4), strict=True)
    ]
    torch.testing.assert_close(obs_update(weight_OI, keep_OI, factor), torch.cat(alone))


def test_dead_inputs_lose_their_weights_and_disturb_nothing() -> None:
    """The other inputs are pruned as if the dead ones were not there, in any scale."""
    weight_OI, input_TI = random_layer(4, 20)
    alive_I = torch.ones(20).bool()
    alive_I[[0, 7, 19]] = False
    keep_OI = keep_per_row(weight_OI.abs(), 0.5)
    gram_II = 1e-6 * (input_TI * alive_I).T @ (input_TI * alive_I)
    factor = hessian_factor(gram_II, dtype=torch.float64)
    new_OI = obs_update(weight_OI, keep_OI, factor)
    assert factor.dead_I.tolist() == (~alive_I).tolist()
    assert (new_OI[:, ~alive_I] == 0).all()
    without = hessian_factor(gram_II[alive_I][:, alive_I], dtype=torch.float64)
    expected_OI = obs_update(weight_OI[:, alive_I], keep_OI[:, alive_I], without)
    torch.testing.assert_close(new_OI[:, alive_I], expected_OI)


def test_a_layer_without_any_input_is_emptied() -> None:
    """All inputs dead: nothing to solve, no NaN."""
    factor = hessian_factor(torch.zeros(5, 5))
    new_OI = obs_update(torch.ones(2, 5), torch.ones(2, 5).bool(), factor)
    assert torch.equal(new_OI, torch.zeros(2, 5))


def test_half_precision_weights_are_solved_in_fp32() -> None:
    """As if they had been fp32 all along; the weights given are not touched."""
    weight_OI, input_TI = random_layer(4, 60)
    half_OI = weight_OI.bfloat16()
    before_OI = half_OI.clone()
    keep_OI = keep_per_row(weight_OI.abs(), 0.5)
    gram_II = input_TI.T @ input_TI
    untouched_II = gram_II.clone()
    factor = hessian_factor(gram_II)
    new_OI = obs_update(half_OI, keep_OI, factor)
    assert new_OI.dtype == torch.float32
    assert torch.equal(new_OI, obs_update(half_OI.float(), keep_OI, factor))
    assert torch.equal(half_OI, before_OI)
    assert torch.equal(gram_II, untouched_II)


def test_damping_grows_until_there_is_a_factor() -> None:
    """A matrix whose lowest eigenvalue is -0.5 of a mean of 1 takes 0.01, 0.1, then 1."""
    direction_I = torch.full((8,), 8**-0.5, dtype=torch.float64)
    gram_II = torch.eye(8, dtype=torch.float64) * 1.2 - 1.7 * direction_I.outer(direction_I)
    assert hessian_factor(gram_II / gram_II[0, 0]).damping == pytest.approx(1.0)
    assert hessian_factor(torch.eye(8)).damping == 0.01


def test_more_damping_than_was_asked_for_is_said() -> None:
    """Once, with both numbers; and nothing where it was enough."""
    direction_I = torch.full((8,), 8**-0.5, dtype=torch.float64)
    gram_II = torch.eye(8, dtype=torch.float64) * 1.2 - 1.7 * direction_I.outer(direction_I)
    with pytest.warns(UserWarning, match=r"of 8 inputs took damping=1 in place of 0\.01; more"):
        assert factored(gram_II / gram_II[0, 0], 0.01).damping == pytest.approx(1.0)
    assert factored(torch.eye(8), 0.01).damping == 0.01  # a warning would be an error here


def test_a_matrix_without_factor_is_refused() -> None:
    """Not pruned by magnitude in silence."""
    gram_II = torch.eye(6) - 50 * torch.ones(6, 6).triu(1) - 50 * torch.ones(6, 6).tril(-1)
    with pytest.raises(ValueError, match="more calibration tokens or a larger damping than 0.01"):
        hessian_factor(gram_II)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused(bad: float) -> None:
    """Activations that overflowed are told apart from a matrix that is too flat."""
    gram_II = torch.eye(4)
    gram_II[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        hessian_factor(gram_II)
