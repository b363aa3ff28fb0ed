"""An order of the inputs in which N:M removes less."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
import torch

from lightning_prune.selection import Pattern, channel_permutation, keep_n_of_m, keep_permuted
from lightning_prune.selection.permutation import best_assignment, dealt


def random_scores(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    """Inputs of very different importance."""
    generator = torch.Generator().manual_seed(seed)
    score_OI = torch.rand(outputs, inputs, generator=generator)
    return score_OI * torch.rand(inputs, generator=generator).pow(3)


def kept(score_OI: torch.Tensor, pattern: Pattern, index_I: torch.Tensor) -> float:
    return float(score_OI[keep_permuted(score_OI, pattern, index_I)].double().sum())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("levels", [None, 3, 1])
def test_the_best_assignment_is_the_best_of_all(size: int, levels: int | None) -> None:
    """By trying all of them; with ties, negative values and zeros."""
    generator = torch.Generator().manual_seed(size)
    for _ in range(5):
        if levels is None:
            value_GG = torch.randn(size, size, generator=generator)
        else:
            value_GG = torch.randint(levels, (size, size), generator=generator).float()
        columns = best_assignment(value_GG).tolist()
        assert sorted(columns) == list(range(size))
        best = max(
            sum(float(value_GG[row, order[row]]) for row in range(size))
            for order in permutations(range(size))
        )
        found = sum(float(value_GG[row, column]) for row, column in enumerate(columns))
        assert found == pytest.approx(best, abs=1e-5)


def test_inputs_are_dealt_back_and_forth() -> None:
    """Of 8 inputs in ascending order, two groups get 0 3 4 7 and 1 2 5 6."""
    assert dealt(torch.arange(8.0)[None], 4).tolist() == [0, 3, 4, 7, 1, 2, 5, 6]
    assert dealt(torch.arange(8.0).flip(0)[None], 4).tolist() == [7, 4, 3, 0, 6, 5, 2, 1]


@pytest.mark.parametrize("pattern", ["1:2", "2:4", "1:4", "3:4", "4:8"])
def test_a_permutation_keeps_more_than_the_stored_order(pattern: str) -> None:
    """And more than dealing alone: each assignment can only raise the sum of what is kept."""
    score_OI, shape = random_scores(16, 48), Pattern.parse(pattern)
    index_I = channel_permutation(score_OI, shape)
    assert sorted(index_I.tolist()) == list(range(48))
    plain, heuristic = torch.arange(48), dealt(score_OI, shape.group)
    best = kept(score_OI, shape, index_I)
    assert best > kept(score_OI, shape, heuristic)
    assert best > kept(score_OI, shape, plain)


def test_two_groups_are_split_in_nearly_the_best_way() -> None:
    """Of all 35 ways to make two groups of four; places are assigned one after the other."""
    score_OI, pattern = random_scores(6, 8), Pattern(2, 4)
    best = 0.0
    for first in combinations(range(8), 4):
        second = [i for i in range(8) if i not in first]
        best = max(best, kept(score_OI, pattern, torch.tensor([*first, *second])))
    found = kept(score_OI, pattern, channel_permutation(score_OI, pattern))
    assert 0.99 * best <= found <= best + 1e-6


def test_masks_are_n_of_m_in_the_permuted_order() -> None:
    """And say of each stored input what its place in that order got."""
    score_OI, pattern = random_scores(5, 12), Pattern(2, 4)
    index_I = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    keep_OI = keep_permuted(score_OI, pattern, index_I)
    assert (keep_OI[:, index_I].view(5, 3, 4).sum(dim=2) == 2).all()
    plain_OI = keep_permuted(score_OI, pattern, torch.arange(12))
    assert torch.equal(plain_OI, keep_n_of_m(score_OI, pattern))


@pytest.mark.parametrize("groups", [256, 257])
def test_wide_layers_are_assigned_in_parts(groups: int) -> None:
    """Whatever the number of parts, it is a permutation, and better than dealing alone."""
    score_OI, pattern = random_scores(2, 2 * groups), Pattern(1, 2)
    index_I = channel_permutation(score_OI, pattern)
    assert sorted(index_I.tolist()) == list(range(2 * groups))
    heuristic = kept(score_OI, pattern, dealt(score_OI, 2))
    assert kept(score_OI, pattern, index_I) > heuristic


def test_equal_scores_and_zeros_give_a_permutation() -> None:
    """Nothing to gain is no error."""
    for score_OI in (torch.zeros(3, 8), torch.ones(3, 8)):
        index_I = channel_permutation(score_OI, Pattern(2, 4))
        assert sorted(index_I.tolist()) == list(range(8))


def test_scores_are_left_as_they_were() -> None:
    """The order is found on copies."""
    score_OI = random_scores(4, 16)
    before = score_OI.clone()
    channel_permutation(score_OI, Pattern(2, 4))
    assert torch.equal(score_OI, before)


def test_a_width_that_is_no_multiple_is_refused() -> None:
    """As for N:M itself."""
    with pytest.raises(ValueError, match="groups of 4 need inputs divisible by 4; got 10"):
        channel_permutation(torch.ones(2, 10), Pattern(2, 4))
