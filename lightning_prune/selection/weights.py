"""From scores to masks, by exact count.

The reference codes compare with a threshold and remove every tie; here the count asked for is the
count removed, and among equal scores the lower index goes first.

Axes: O output features, I input features, S scopes compared within themselves, M members of one,
R of them removed, G groups of an N:M pattern.
"""

from __future__ import annotations

import numpy as np
import torch

from lightning_prune.selection.count import removed_count
from lightning_prune.selection.pattern import Pattern

__all__ = [
    "keep_above_threshold",
    "keep_balanced",
    "keep_n_of_m",
    "keep_per_matrix",
    "keep_per_row",
]

AT_ONCE = 2**26
"""Comparisons that are held at a time on a GPU."""


def keep_per_row(score_OI: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Remove the same count of the lowest scores in every row (output feature)."""
    return _keep_highest(score_OI, removed_count(score_OI.shape[1], sparsity))


def keep_per_matrix(score_OI: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Remove the lowest scores of the whole matrix."""
    removed = removed_count(score_OI.numel(), sparsity)
    return _keep_highest(score_OI.reshape(1, -1), removed).view(score_OI.shape)


def keep_balanced(score_OI: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Remove the matrix's exact count, from every row the same within one.

    What is left over goes from the rows whose next weight has the lowest score.
    """
    outputs, inputs = score_OI.shape
    each, left = divmod(removed_count(score_OI.numel(), sparsity), outputs)
    keep_OI = _keep_highest(score_OI, each)
    if left:
        next_OI = keep_OI & ~_keep_highest(score_OI, each + 1)
        rows_L = score_OI[next_OI].argsort(stable=True)[:left]
        keep_OI[rows_L] &= ~next_OI[rows_L]
    return keep_OI


def keep_above_threshold(score_OI: torch.Tensor, sparsity: float) -> torch.Tensor:
    """The rule of the reference codes, to compare with: one score becomes the threshold.

    What equals the threshold goes, so one weight more than asked is removed from a matrix, and
    all that tie with it.
    """
    removed = min(int(score_OI.numel() * sparsity) + 1, score_OI.numel())
    return score_OI > _highest_removed(score_OI.reshape(1, -1), removed)


def keep_n_of_m(score_OI: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Keep the `pattern.kept` highest of every `pattern.group` consecutive inputs.

    Each score is compared with the others of its group, without a sort: pair by pair on the CPU,
    where it takes the least memory traffic, and all at once on a GPU, where that is few launches.

    Raises:
        ValueError: the number of inputs is not a multiple of the group.
    """
    outputs, inputs = score_OI.shape
    if inputs % pattern.group:
        raise ValueError(f"{pattern} needs inputs divisible by {pattern.group}; got {inputs}")
    score_GM = score_OI.reshape(-1, pattern.group)
    higher = _higher_at_once if score_OI.is_cuda else _higher_by_pairs
    return (higher(score_GM) < pattern.kept).view(outputs, inputs)


def _higher_by_pairs(score_GM: torch.Tensor) -> torch.Tensor:
    """How many of its group each score gives way to: higher ones, and equal ones behind it."""
    columns = score_GM.unbind(1)
    higher_GM = torch.empty_like(score_GM, dtype=torch.int16)
    for i, column in enumerate(columns):
        above = torch.zeros_like(column, dtype=torch.int16)
        for j, other in enumerate(columns):
            if j != i:
                above += (other >= column) if j > i else (other > column)
        higher_GM[:, i] = above
    return higher_GM


def _higher_at_once(score_GM: torch.Tensor) -> torch.Tensor:
    """As `_higher_by_pairs`, in six launches; some groups at a time, for memory."""
    group = score_GM.shape[1]
    behind_MM = torch.ones(group, group, dtype=torch.bool, device=score_GM.device).triu(1)
    parts = []
    for part_GM in score_GM.split(max(1, AT_ONCE // group**2)):
        other_G1M, own_GM1 = part_GM[:, None, :], part_GM[:, :, None]
        wins = torch.where(behind_MM, other_G1M >= own_GM1, other_G1M > own_GM1)
        parts.append(wins.sum(dim=2, dtype=torch.int16))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _keep_highest(score_SM: torch.Tensor, removed: int) -> torch.Tensor:
    """True for all but the `removed` lowest of each row; of equal scores the first ones go."""
    if removed == 0:
        return torch.ones_like(score_SM, dtype=torch.bool)
    threshold_S1 = _highest_removed(score_SM, removed)
    keep_SM = score_SM > threshold_S1
    surplus_S1 = score_SM.shape[1] - removed - keep_SM.sum(dim=1, keepdim=True)
    if surplus_S1.any():  # ties at the threshold: the last ones of them stay
        tied_SM = score_SM == threshold_S1
        first_S1 = tied_SM.sum(dim=1, keepdim=True) - surplus_S1
        keep_SM |= tied_SM & (tied_SM.cumsum(dim=1) > first_S1)
    return keep_SM


def _highest_removed(score_SM: torch.Tensor, removed: int) -> torch.Tensor:
    """The `removed`-th lowest of each row, shape (S, 1), without a sort.

    On the CPU numpy's partition takes a seventh of the time of topk for rows, and a tenth for
    whole matrices.
    """
    if score_SM.is_cpu and score_SM.dtype in (torch.float32, torch.float64):
        ordered_SM = np.partition(score_SM.detach().numpy(), removed - 1, axis=1)
        return torch.from_numpy(ordered_SM[:, removed - 1 : removed].copy())
    lowest_SR = score_SM.topk(removed, dim=1, largest=False, sorted=False).values
    return lowest_SR.amax(dim=1, keepdim=True)
