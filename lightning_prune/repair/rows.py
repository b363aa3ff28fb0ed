"""Rows of a layer solved some at a time, so that it does not show who solves which.

The last bits of a matrix product depend on how many rows it has. Where a solution goes into the
next layer's, and that one's into the next, such bits grow until other weights stay. So rows are
multiplied in chunks of a fixed number, counted from the first; processes that divide the rows among
themselves take whole chunks, and find what one process finds.

Axes: O output features, I, J input features, S some of them.
"""

from __future__ import annotations

import torch

__all__ = ["chunks", "product", "rows_of", "solved"]

ROWS = 1024
"""Of a chunk: enough for a device to be busy with."""


def chunks(matrix_OI: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Views of its rows, some at a time."""
    return matrix_OI.split(ROWS)


def product(left_OI: torch.Tensor, right_IJ: torch.Tensor) -> torch.Tensor:
    """The product left @ right, (O, J)."""
    out_OJ = left_OI.new_empty(len(left_OI), right_IJ.shape[1])
    for part_OI, part_OJ in zip(chunks(left_OI), chunks(out_OJ), strict=True):
        torch.mm(part_OI, right_IJ, out=part_OJ)
    return out_OJ


def solved(right_OS: torch.Tensor, lower_SS: torch.Tensor) -> torch.Tensor:
    """The solution right (L Lᵀ)⁻¹, (O, S), L being a Cholesky factor."""
    out_OS = torch.empty_like(right_OS)
    for part_OS, new_OS in zip(chunks(right_OS), chunks(out_OS), strict=True):
        new_OS.copy_(torch.cholesky_solve(part_OS.mT, lower_SS).mT)
    return out_OS


def rows_of(rows: int, part: int, of: int) -> slice:
    """The rows that one of several processes solves for: whole chunks, perhaps none.

    Args:
        rows: how many there are.
        part: the process.
        of: how many processes there are.
    """
    chunks = -(-rows // ROWS)
    start, stop = (min(chunks * edge // of * ROWS, rows) for edge in (part, part + 1))
    return slice(start, stop)
