"""All units of all blocks compared with each other.

Source: An et al., "FLAP", arXiv 2312.11983, section 3.3, "adaptive structure search" (AL-AM).

Axes: U units of one pool.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_prune.allocation.base import OverUnits
from lightning_prune.allocation.counts import Pool, unit_counts
from lightning_prune.selection import standardised

__all__ = ["GlobalStandardised", "global_counts"]


def global_counts(
    scores: Sequence[torch.Tensor], sizes: Sequence[float], most: Sequence[int], target: float
) -> list[int]:
    """How many of each pool go when the lowest scores of all go, as far as the target reaches.

    A unit that would take the sum further past the target than it is now in front of it stays, and
    the next ones are tried; so do units of a pool that has lost the most it can.

    Args:
        scores: of each pool's units, (U,), comparable across pools.
        sizes: parameters of one unit, by pool.
        most: units that can go, by pool.
        target: parameters that go altogether.
    """
    pool_of = [i for i, score_U in enumerate(scores) for _ in range(score_U.numel())]
    order = torch.cat([score_U.double().cpu() for score_U in scores]).argsort(stable=True)
    counts, left, smallest = [0] * len(scores), float(target), min(sizes)
    for unit in order.tolist():
        pool = pool_of[unit]
        if counts[pool] < most[pool] and sizes[pool] <= 2 * left:
            counts[pool] += 1
            left -= sizes[pool]
        if smallest > 2 * left:
            break
    return counts


class GlobalStandardised(OverUnits):
    """Remove the units of lowest score in the whole model, each block's scores brought to a scale.

    The scores of one kind in one block are standardised (mean 0, standard deviation 1). Then GQA
    groups and neurons of all blocks stand in one line; the lowest go until the parameters that they
    hold make up the budget. Blocks end with different widths.

    Differs from FLAP's code: a unit weighs what it holds, so a GQA group of G query heads weighs
    (2G + 2)·head_dim/3 neurons (theirs 170, a truncated 512/3, right for heads of their own keys
    and of size 128); the budget is met within one neuron; no block loses all.

    Args:
        standardise: False compares the scores as they are, for scores that are losses already.
    """

    standardise: bool = True

    def unit_counts(
        self,
        pools: Sequence[Pool],
        scores: Sequence[torch.Tensor],
        shares: Sequence[float],
        target: float,
    ) -> list[int]:
        """The lowest of all, then rounded to what each pool allows."""
        if self.standardise:
            scores = [standardised([score_U])[0] for score_U in scores]
        sizes, limits = [pool.size for pool in pools], [pool.most for pool in pools]
        counts = global_counts(scores, sizes, limits, target)
        return unit_counts(pools, counts, target)
