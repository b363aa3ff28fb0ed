"""From scores to masks: exact counts, ties by index, against slow loops."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.selection import (
    Pattern,
    keep_above_threshold,
    keep_n_of_m,
    keep_per_matrix,
    keep_per_row,
    removed_count,
    weights,
)

SPARSITIES = (0.0, 0.01, 0.1, 0.29, 0.3, 0.5, 0.66, 0.75, 0.9, 0.99)


def scores(*shape: int, levels: int | None = None, seed: int = 0) -> torch.Tensor:
    """Random scores; with `levels`, only so many different ones, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    if levels is None:
        return torch.randn(shape, generator=generator).abs()
    return torch.randint(levels, shape, generator=generator).float()


def slow_keep(row: list[float], removed: int) -> list[bool]:
    """Take the lowest away one by one; of equal ones, the first."""
    gone = sorted(range(len(row)), key=lambda i: (row[i], i))[:removed]
    return [i not in gone for i in range(len(row))]


@pytest.mark.parametrize("levels", [None, 1, 2, 5])
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_rows_equal_a_loop(sparsity: float, levels: int | None) -> None:
    """Each row loses its own lowest scores, with few, many and only ties."""
    score_OI = scores(6, 100, levels=levels)
    keep_OI = keep_per_row(score_OI, sparsity)
    removed = removed_count(100, sparsity)
    assert keep_OI.tolist() == [slow_keep(row, removed) for row in score_OI.tolist()]


@pytest.mark.parametrize("levels", [None, 1, 2, 5])
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_matrices_equal_a_loop(sparsity: float, levels: int | None) -> None:
    """The whole matrix is one row, read line by line."""
    score_OI = scores(7, 13, levels=levels)
    keep_OI = keep_per_matrix(score_OI, sparsity)
    flat = slow_keep(score_OI.flatten().tolist(), removed_count(91, sparsity))
    assert keep_OI.flatten().tolist() == flat


@pytest.mark.parametrize("levels", [None, 1, 2, 5])
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:4", "4:8", "1:2", "5:12"])
def test_patterns_equal_a_loop(pattern: str, levels: int | None) -> None:
    """Every group of consecutive inputs keeps its highest scores."""
    form = Pattern.parse(pattern)
    score_OI = scores(5, form.group * 3, levels=levels)
    keep_OI = keep_n_of_m(score_OI, form)
    for row, kept in zip(score_OI.tolist(), keep_OI.tolist(), strict=True):
        for start in range(0, len(row), form.group):
            group = slice(start, start + form.group)
            assert kept[group] == slow_keep(row[group], form.group - form.kept)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_ties_do_not_remove_more_than_asked(sparsity: float) -> None:
    """Equal scores everywhere: still the exact count, and the first ones go."""
    keep_OI = keep_per_row(torch.zeros(3, 100), sparsity)
    removed = removed_count(100, sparsity)
    assert not keep_OI[:, :removed].any()
    assert keep_OI[:, removed:].all()


def test_a_lower_index_goes_first_in_a_pattern() -> None:
    """Of four equal scores 2:4 keeps the last two."""
    keep_OI = keep_n_of_m(torch.ones(1, 8), Pattern(2, 4))
    assert keep_OI.tolist() == [[False, False, True, True] * 2]


def test_29_percent_of_100_inputs_are_29() -> None:
    """The count is exact where binary fractions are not."""
    assert (~keep_per_row(scores(4, 100), 0.29)).sum(dim=1).tolist() == [29] * 4


def test_groups_larger_than_a_byte_count_right() -> None:
    """No counter runs over in a group of more than 256 inputs."""
    keep_OI = keep_n_of_m(scores(2, 600), Pattern(3, 300))
    assert keep_OI.view(2, 2, 300).sum(dim=2).tolist() == [[3, 3], [3, 3]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_float_type_gives_exact_counts(dtype: torch.dtype) -> None:
    """Half precision makes many ties; the counts stay exact and the mask is bool."""
    score_OI = scores(8, 64).to(dtype)
    for keep_OI in (keep_per_row(score_OI, 0.5), keep_n_of_m(score_OI, Pattern(2, 4))):
        assert keep_OI.dtype == torch.bool
        assert keep_OI.sum(dim=1).tolist() == [32] * 8
    assert int(keep_per_matrix(score_OI, 0.3).sum()) == 512 - 153


def test_scores_may_lie_transposed_in_memory() -> None:
    """The layout of the score does not show in the mask."""
    score_OI = scores(16, 8, levels=4).T
    plain_OI = score_OI.contiguous()
    assert torch.equal(keep_per_row(score_OI, 0.5), keep_per_row(plain_OI, 0.5))
    assert torch.equal(keep_per_matrix(score_OI, 0.5), keep_per_matrix(plain_OI, 0.5))
    assert torch.equal(keep_n_of_m(score_OI, Pattern(2, 4)), keep_n_of_m(plain_OI, Pattern(2, 4)))


def test_scores_are_left_as_they_were() -> None:
    """Selection reads only."""
    score_OI = scores(4, 8)
    before = score_OI.clone()
    keep_per_row(score_OI, 0.5)
    keep_per_matrix(score_OI, 0.5)
    keep_n_of_m(score_OI, Pattern(2, 4))
    assert torch.equal(score_OI, before)


def test_a_width_that_is_no_multiple_is_refused() -> None:
    """A short last group is not pruned by another rule."""
    with pytest.raises(ValueError, match="2:4 needs inputs divisible by 4; got 22"):
        keep_n_of_m(scores(2, 22), Pattern(2, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_is_selected_alike(dtype: torch.dtype) -> None:
    """Half precision, which numpy does not partition, ties like any other."""
    score_OI = scores(6, 100, levels=9)
    assert torch.equal(keep_per_row(score_OI.to(dtype), 0.5), keep_per_row(score_OI, 0.5))
    assert torch.equal(keep_per_matrix(score_OI.to(dtype), 0.3), keep_per_matrix(score_OI, 0.3))


def test_selection_leaves_the_scores_alone() -> None:
    """Also where they are a view of something else."""
    score_OI = scores(9, 7)
    before_OI = score_OI.clone()
    keep_per_row(score_OI.t(), 0.5)
    keep_per_matrix(score_OI.t(), 0.5)
    assert torch.equal(score_OI, before_OI)


def test_the_threshold_of_the_reference_codes_removes_one_more() -> None:
    """And everything that ties with it, where the exact count does not."""
    score_OI = scores(7, 13)
    removed = removed_count(91, 0.5)
    assert (~keep_per_matrix(score_OI, 0.5)).sum() == removed
    keep_OI = keep_above_threshold(score_OI, 0.5)
    assert (~keep_OI).sum() == removed + 1
    assert score_OI[keep_OI].min() > score_OI[~keep_OI].max()
    tied_OI = torch.tensor([[0.0, 1.0, 1.0, 1.0, 2.0, 3.0]])
    assert keep_above_threshold(tied_OI, 1 / 6).tolist() == [[False] * 4 + [True] * 2]
    assert not keep_above_threshold(tied_OI, 1.0).any()


@pytest.mark.parametrize("group", [4, 8, 15])
def test_all_at_once_is_pair_by_pair(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ties, and in several parts."""
    monkeypatch.setattr(weights, "AT_ONCE", 5 * group**2)
    score_GM = scores(13, group).mul(3).round()
    torch.testing.assert_close(
        weights._higher_at_once(score_GM), weights._higher_by_pairs(score_GM)
    )
