"""An order of a layer's inputs in which N:M sparsity removes less.

Source: the channel permutation of RIA (Zhang et al., ICLR 2024, section 4.2): inputs of high and of
low score are dealt out evenly to the groups; then, for each place in a group, the inputs that stand
there are assigned anew to all groups, so that the sum of the scores that stay is highest.
Differs: among more than 256 groups, inputs are assigned within parts of 256 (the authors' --fast
has 4 to 16 parts).

Axes: O output features, I input features, G groups of a part, M places in a group.
"""

from __future__ import annotations

import numpy as np
import torch

from lightning_prune.selection.pattern import Pattern
from lightning_prune.selection.weights import keep_n_of_m

__all__ = ["best_assignment", "channel_permutation", "dealt", "keep_permuted"]

_PART = 256


def keep_permuted(score_OI: torch.Tensor, pattern: Pattern, index_I: torch.Tensor) -> torch.Tensor:
    """Keep N of M consecutive inputs in the order `index_I`; the mask is in the stored order."""
    keep_OI = torch.empty_like(score_OI, dtype=torch.bool)
    keep_OI[:, index_I] = keep_n_of_m(score_OI[:, index_I], pattern)
    return keep_OI


def channel_permutation(score_OI: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """The inputs in an order in which groups of M keep much of the score, (I,).

    Raises:
        ValueError: the number of inputs is not a multiple of the group.
    """
    index_I = dealt(score_OI, pattern.group)
    for part_GM in index_I.view(-1, pattern.group).split(_PART):
        for place in range(pattern.group):
            order_G = best_assignment(_kept_with(score_OI, part_GM, place, pattern.kept))
            part_GM[:, place] = part_GM[order_G.to(part_GM.device), place]
    return index_I


def dealt(score_OI: torch.Tensor, group: int) -> torch.Tensor:
    """The inputs by their total score, dealt to the groups, back and forth: the start, (I,).

    Raises:
        ValueError: the number of inputs is not a multiple of the group.
    """
    inputs = score_OI.shape[1]
    if inputs % group:
        raise ValueError(f"groups of {group} need inputs divisible by {group}; got {inputs}")
    strip_MG = score_OI.sum(dim=0).argsort(stable=True).view(group, -1)
    strip_MG[1::2] = strip_MG[1::2].flip(1)
    return strip_MG.mT.flatten()


def _kept_with(
    score_OI: torch.Tensor, part_GM: torch.Tensor, place: int, kept: int
) -> torch.Tensor:
    """What each group keeps with the input that another has at a place, (G, G).

    Of its other M - 1 inputs a group keeps N - 1 in any case; the new one, x, competes with the
    Nth, r. The sum of max(r, x) = (r + x + |r - x|) / 2 is highest, whatever the assignment adds up
    of r and x alone, where that of |r - x| is.
    """
    own_GO = score_OI[:, part_GM[:, place]].mT.float()
    others_GM = torch.cat([part_GM[:, :place], part_GM[:, place + 1 :]], dim=1)
    others_OGM = score_OI[:, others_GM].float()
    rival_GO = others_OGM.sort(dim=2, descending=True).values[..., kept - 1].mT
    return torch.cdist(rival_GO.contiguous(), own_GO.contiguous(), p=1)


def best_assignment(value_GG: torch.Tensor) -> torch.Tensor:
    """The column of each row, each taken once, for which the sum of values is highest, (G,).

    Successive shortest augmenting paths (Jonker and Volgenant 1987), in float64 on the CPU.
    """
    cost_GG = -value_GG.double().cpu().numpy()
    assert np.isfinite(cost_GG).all(), "no path is the shortest among NaN"
    column_price_G = cost_GG.min(axis=0)
    row_price_G = (cost_GG - column_price_G).min(axis=1)
    size = len(cost_GG)
    row_of_G = np.full(size, -1)  # by column
    for row in range(size):
        length_G = np.full(size, np.inf)  # of the shortest path to each column
        previous_G = np.full(size, -1)
        reached_G = np.zeros(size, dtype=bool)
        current, column, length = row, -1, 0.0
        while True:
            through_G = cost_GG[current] - column_price_G + (length - row_price_G[current])
            shorter_G = (through_G < length_G) & ~reached_G
            length_G[shorter_G] = through_G[shorter_G]
            previous_G[shorter_G] = column
            column = int(np.where(reached_G, np.inf, length_G).argmin())
            length = length_G[column]
            if row_of_G[column] < 0:
                break
            reached_G[column] = True
            current = row_of_G[column]
        gain_G = length - length_G[reached_G]
        row_price_G[row] += length
        row_price_G[row_of_G[reached_G]] += gain_G
        column_price_G[reached_G] -= gain_G
        while column >= 0:
            before = previous_G[column]
            row_of_G[column] = row_of_G[before] if before >= 0 else row
            column = before
    return torch.from_numpy(row_of_G.argsort())
