"""Shares that the user gives to the attention and to the MLP of each block."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_prune.allocation.base import OverUnits
from lightning_prune.allocation.counts import Pool, unit_counts
from lightning_prune.allocation.per_block import check_mean

__all__ = ["PerPart"]


class PerPart(OverUnits):
    """One given share for the GQA groups, and one for the neurons, of each block.

    Args:
        attention: the fraction of the groups to remove from each block that is pruned and has some,
            in their order; none where the method leaves attention alone.
        mlp: the same of the neurons. The mean of all, by parameters, is the budget.

    Raises:
        ValueError: a fraction is not in [0, 1); later, if there are not as many fractions as blocks
            with such units, or their mean is not the budget.
    """

    attention: Sequence[float] = ()
    mlp: Sequence[float] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("attention", "mlp"):
            inside = all(0 <= fraction < 1 for fraction in getattr(self, name))
            self.require(name, inside, "they are numbers in [0, 1)")
        if not (self.attention or self.mlp):
            raise ValueError("PerPart has neither attention nor mlp; give one fraction a block")

    def unit_counts(
        self,
        pools: Sequence[Pool],
        scores: Sequence[torch.Tensor],
        shares: Sequence[float],
        target: float,
    ) -> list[int]:
        """As many as the fractions ask for, rounded to what each pool allows."""
        given = {"group": list(self.attention), "neuron": list(self.mlp)}
        for (kind, fractions), name in zip(given.items(), ("attention", "mlp"), strict=True):
            count = sum(pool.kind == kind for pool in pools)
            if len(fractions) != count:
                raise ValueError(
                    f"PerPart has {len(fractions)} fractions for the {name} of {count} blocks; "
                    "give one for each that is pruned"
                )
        wished = [given[pool.kind].pop(0) * pool.units for pool in pools]
        total = sum(pool.parameters for pool in pools)
        removed = sum(w * pool.size for w, pool in zip(wished, pools, strict=True))
        check_mean("PerPart", removed / total, target / total)
        return unit_counts(pools, wished, target)
