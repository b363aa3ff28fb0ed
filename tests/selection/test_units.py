"""From unit scores to the units that stay."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.selection import keep_units


@pytest.mark.parametrize("levels", [1, 3, 1000])
@pytest.mark.parametrize("removed", [0, 1, 5, 21])
def test_the_lowest_go_and_the_rest_is_sorted(removed: int, levels: int) -> None:
    """Equal to taking the lowest away one by one, of equal ones the first."""
    score_U = torch.randint(levels, (22,), generator=torch.Generator().manual_seed(0)).float()
    order = sorted(range(22), key=lambda i: (float(score_U[i]), i))
    assert keep_units(score_U, removed).tolist() == sorted(order[removed:])


def test_indices_are_integers_on_the_scores_device() -> None:
    """What comes back can index."""
    kept_U = keep_units(torch.tensor([3.0, 1.0, 2.0]), 1)
    assert kept_U.dtype == torch.int64
    assert kept_U.tolist() == [0, 2]
