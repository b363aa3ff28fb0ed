"""The units with the smallest weights go: the baseline that looks at nothing else.

Source: the l1 and l2 baselines of Ma, Fang, Wang, "LLM-Pruner", arXiv 2305.11627.
Needs no calibration data of its own; the repair may.
Differs from LLM-Pruner's code: its l2 leaves out the root, and the parts of a unit are averaged and
not added, which changes no order within a block.

Axes: U units of one block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lightning_prune.anatomy import Block
from lightning_prune.callbacks.unit_pruning import UnitPruning

__all__ = ["MagnitudeSP", "unit_norm"]


def unit_norm(block: Block, kind: str, power: int) -> torch.Tensor:
    """The L1 or L2 norm of all the weights of each unit, (U,).

    Args:
        block: the block.
        kind: "group": rows of q, k, v and columns of o; "neuron": rows of gate and up, columns of
            down.
        power: 1 or 2.
    """
    units = block.units(kind)
    parts = [
        member.gather(member.site.module.weight.detach(), units).float().abs().pow(power)
        for member in block.members(kind)
    ]
    return torch.stack([part.sum(dim=(1, 2)) for part in parts]).sum(dim=0).pow(1 / power)


class MagnitudeSP(UnitPruning):
    """Remove the units whose weights are smallest.

    ```python
    MagnitudeSP(ratio=0.2)
    MagnitudeSP(ratio=0.2, norm=1, repair=NoRepair())  # calibrates nothing
    ```

    Args:
        ratio: as in `UnitPruning`.
        norm: 1 for the sum of |w| over all weights of a unit, 2 for the root of the sum of w².
        settings: the arguments of `UnitPruning`.

    Raises:
        ValueError: norm is neither 1 nor 2.
    """

    def __init__(self, ratio: float | None = None, norm: int = 2, **settings: Any) -> None:
        super().__init__(ratio, **settings)
        if norm not in (1, 2):
            raise ValueError(f"norm={norm!r} must be 1 or 2")
        self.norm = norm

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The norm of every unit of every kind asked for."""
        return {kind: unit_norm(block, kind, self.norm) for kind in self.kinds_of(block)}
