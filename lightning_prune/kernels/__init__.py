"""Products with inputs that count as zero: contexts for models, and what runs inside them.

Nothing here imports triton, but for `gemv`, which is imported when it is first used.
"""

from lightning_prune.kernels.context import SparseActivations, check_thresholds, sparse_activations
from lightning_prune.kernels.reference import reference_product, without_small
from lightning_prune.kernels.thresholds import ActivationThresholds

__all__ = [
    "ActivationThresholds",
    "SparseActivations",
    "check_thresholds",
    "reference_product",
    "sparse_activations",
    "without_small",
]
