"""Within what weights are compared, and what happens at the threshold.

Axes: O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from lightning_prune.selection.weights import (
    keep_above_threshold,
    keep_balanced,
    keep_per_matrix,
    keep_per_row,
)

__all__ = ["COLUMNS", "Scope", "Ties", "keep_in_scope", "scope_size"]

Scope = Literal["row", "balanced", "matrix", "columns", "global"]
Ties = Literal["exact", "reference"]

COLUMNS = 128
"""Consecutive columns that are compared together, as in SparseGPT."""


def keep_in_scope(
    score_OI: torch.Tensor, sparsity: float, scope: Scope, ties: Ties = "exact"
) -> torch.Tensor:
    """Remove the lowest scores of every row, of the matrix, or of every 128 columns.

    "row" takes the same whole number from every row, and so up to one weight a row too few;
    "balanced" takes the matrix's exact count, and from every row the same within one. "global" is
    that of a matrix which is all there is; for several see `keep_globally`.

    Args:
        score_OI: the scores.
        sparsity: fraction to remove from each scope.
        scope: within what scores are compared.
        ties: "exact" removes the count and no more, lower index first; "reference" is the
            threshold of the authors' codes. (Rows are exact in them too.)
    """
    if scope == "row":
        return keep_per_row(score_OI, sparsity)
    if scope == "balanced":
        return keep_balanced(score_OI, sparsity)
    keep = keep_per_matrix if ties == "exact" else keep_above_threshold
    if scope in ("matrix", "global"):
        return keep(score_OI, sparsity)
    return torch.cat([keep(part_OC, sparsity) for part_OC in score_OI.split(COLUMNS, dim=1)], dim=1)


def scope_size(shape: Sequence[int], scope: Scope) -> int:
    """Of how many weights of a matrix of shape (O, I) a fraction is taken at a time."""
    outputs, inputs = shape
    columns = min(inputs, COLUMNS) if scope == "columns" else inputs
    return columns if scope == "row" else outputs * columns
