"""Scores and a share become what stays. Exact counts; ties are broken by index."""

from lightning_prune.selection.count import removed_count
from lightning_prune.selection.pattern import Pattern
from lightning_prune.selection.permutation import channel_permutation, keep_permuted
from lightning_prune.selection.scale import standardised
from lightning_prune.selection.scope import (
    COLUMNS,
    Scope,
    Ties,
    keep_in_scope,
    scope_size,
)
from lightning_prune.selection.together import keep_globally
from lightning_prune.selection.units import keep_units
from lightning_prune.selection.weights import (
    keep_above_threshold,
    keep_balanced,
    keep_n_of_m,
    keep_per_matrix,
    keep_per_row,
)

__all__ = [
    "COLUMNS",
    "Pattern",
    "Scope",
    "Ties",
    "channel_permutation",
    "keep_above_threshold",
    "keep_balanced",
    "keep_globally",
    "keep_in_scope",
    "keep_n_of_m",
    "keep_per_matrix",
    "keep_per_row",
    "keep_permuted",
    "keep_units",
    "removed_count",
    "scope_size",
    "standardised",
]
