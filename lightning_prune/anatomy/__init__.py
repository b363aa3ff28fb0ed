"""Where things are in a Hugging Face model. The only room that names modules."""

from lightning_prune.anatomy.anatomy import UNIT_ROLES, Anatomy, Block, Member, Site
from lightning_prune.anatomy.families import (
    FAMILIES,
    PRUNED_PREFIX,
    Family,
    SiteTable,
    add_family,
    family_of,
)
from lightning_prune.anatomy.tasks import CausalTask, ImageTask, Labels, Task
from lightning_prune.anatomy.weights import check_numbers, check_unquantised, quantisation

__all__ = [
    "FAMILIES",
    "PRUNED_PREFIX",
    "UNIT_ROLES",
    "Anatomy",
    "Block",
    "CausalTask",
    "Family",
    "ImageTask",
    "Labels",
    "Member",
    "Site",
    "SiteTable",
    "Task",
    "add_family",
    "check_numbers",
    "check_unquantised",
    "family_of",
    "quantisation",
]
