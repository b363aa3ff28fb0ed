"""What the weights that stay can do for those that go. Plain tensors, no modules."""

from lightning_prune.repair.admm import Project, alps, anneal
from lightning_prune.repair.greedy import greedy_removal
from lightning_prune.repair.obs import (
    HessianFactor,
    Select,
    factored,
    hessian_factor,
    obs_prune,
    saliency,
)
from lightning_prune.repair.unit_repair import Bias, LeastSquares, Repair

__all__ = [
    "Bias",
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
    "saliency",
]
