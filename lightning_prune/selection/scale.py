"""Scores brought to one scale, so that those of different places can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

__all__ = ["standardised"]


def standardised(tables: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Less their common mean, over their common standard deviation (unbiased), in fp32.

    Where all are equal, or there is one number only, the result is 0.

    Args:
        tables: scores of any shapes.
    """
    count = sum(table.numel() for table in tables)
    mean = math.fsum(float(table.double().sum()) for table in tables) / max(1, count)
    squares = math.fsum(float((table.double() - mean).square().sum()) for table in tables)
    deviation = math.sqrt(squares / max(1, count - 1))
    return [((table.double() - mean) / (deviation or 1.0)).float() for table in tables]
