"""Products with inputs that count as zero: a context for models, and what runs inside it.

Nothing here imports triton but `gemv`, which is imported when a GPU is to run it.
"""

from lightning_prune.kernels.context import (
    SparseActivations,
    read_thresholds,
    sparse_activations,
    usable_thresholds,
)
from lightning_prune.kernels.reference import reference_product, without_small

__all__ = [
    "SparseActivations",
    "read_thresholds",
    "reference_product",
    "sparse_activations",
    "usable_thresholds",
    "without_small",
]
