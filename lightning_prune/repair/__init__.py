"""What the weights that stay can do for those that go. Plain tensors, no modules."""

from lightning_prune.repair.admm import Project, alps, anneal
from lightning_prune.repair.block_fit import BlockFit
from lightning_prune.repair.greedy import greedy_removal
from lightning_prune.repair.obs import (
    HessianFactor,
    Select,
    factored,
    hessian_factor,
    obs_prune,
    saliency,
)
from lightning_prune.repair.rows import product, rows_of, solved
from lightning_prune.repair.unit_repair import Bias, Fixed, LeastSquares, Repair

__all__ = [
    "Bias",
    "BlockFit",
    "Fixed",
    "HessianFactor",
    "LeastSquares",
    "Project",
    "Repair",
    "Select",
    "alps",
    "anneal",
    "factored",
    "greedy_removal",
    "hessian_factor",
    "obs_prune",
    "product",
    "rows_of",
    "saliency",
    "solved",
]
