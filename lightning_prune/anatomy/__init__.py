"""Where things are in a Hugging Face model. The only room that names modules."""

from lightning_prune.anatomy.anatomy import (
    PRUNED_PREFIX,
    UNIT_ROLES,
    Anatomy,
    Block,
    Member,
    Site,
    family_of,
)
from lightning_prune.anatomy.families import FAMILIES, Family, SiteTable

__all__ = [
    "FAMILIES",
    "PRUNED_PREFIX",
    "UNIT_ROLES",
    "Anatomy",
    "Block",
    "Family",
    "Member",
    "Site",
    "SiteTable",
    "family_of",
]
