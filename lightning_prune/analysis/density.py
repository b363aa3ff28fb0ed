"""Large masks made small enough to be drawn.

Axes: O output features, I input features, Y, X cells of a picture.
"""

from __future__ import annotations

import numpy as np

__all__ = ["density"]


def density(keep_OI: np.ndarray, most: int = 256) -> np.ndarray:
    """The fraction of weights that stay in each cell, (Y, X), with every weight in one cell.

    Args:
        keep_OI: the mask.
        most: cells on each side; a smaller side has as many as it has weights.
    """
    starts = [np.arange(min(side, most)) * side // min(side, most) for side in keep_OI.shape]
    counts_YI = np.add.reduceat(keep_OI, starts[0], axis=0, dtype=np.int64)
    counts_YX = np.add.reduceat(counts_YI, starts[1], axis=1)
    sizes = [np.diff(start, append=side) for start, side in zip(starts, keep_OI.shape, strict=True)]
    return counts_YX / np.outer(*sizes)
