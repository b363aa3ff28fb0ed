"""What the weights that stay can do for those that go. Plain tensors, no modules."""

from lightning_prune.repair.admm import Project, alps, anneal
from lightning_prune.repair.error import relative_error
from lightning_prune.repair.greedy import greedy_removal
from lightning_prune.repair.least_squares import refit
from lightning_prune.repair.obs import (
    HessianFactor,
    Select,
    hessian_factor,
    obs_prune,
    obs_update,
    saliency,
)
from lightning_prune.repair.unit_repair import Bias, LeastSquares, NoRepair, Repair

__all__ = [
    "Bias",
    "HessianFactor",
    "LeastSquares",
    "NoRepair",
    "Project",
    "Repair",
    "Select",
    "alps",
    "anneal",
    "greedy_removal",
    "hessian_factor",
    "obs_prune",
    "obs_update",
    "refit",
    "relative_error",
    "saliency",
]
