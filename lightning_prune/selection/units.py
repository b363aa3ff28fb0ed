"""From unit scores to the units that stay.

Axes: U units of one block.
"""

from __future__ import annotations

import torch

__all__ = ["keep_units"]


def keep_units(score_U: torch.Tensor, removed: int) -> torch.Tensor:
    """Sorted indices of all but the `removed` lowest scores; of equal ones the lower index goes."""
    ascending_U = score_U.argsort(stable=True)
    return ascending_U[removed:].sort().values
