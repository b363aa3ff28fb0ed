"""The units with the smallest weights go: the baseline that looks at nothing else.

Source: the l1 and l2 baselines of Ma, Fang, Wang, "LLM-Pruner", arXiv 2305.11627.
Needs no calibration data of its own; the repair may.
Differs from LLM-Pruner's code: its l2 leaves out the root, and the parts of a unit are averaged and
not added, which changes no order within a block.

Axes: U units of one block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from lightning_prune.anatomy import Block
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.methods.units import UnitPruning
from lightning_prune.scores.magnitude import unit_norm

__all__ = ["MagnitudeSP"]


class MagnitudeSP(PruningCallback, UnitPruning):
    """Remove the units whose weights are smallest.

    ```python
    MagnitudeSP(ratio=0.2)
    MagnitudeSP(ratio=0.2, norm=1, repair=None)  # calibrates nothing
    ```

    Args:
        norm: 1 for the sum of |w| over all weights of a unit, 2 for the root of the sum of w².

    Raises:
        ValueError: norm is neither 1 nor 2.
    """

    norm: Literal[1, 2] = 2

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The norm of every unit of every kind asked for."""
        return {kind: unit_norm(block, kind, self.norm) for kind in self.kinds_of(block)}
