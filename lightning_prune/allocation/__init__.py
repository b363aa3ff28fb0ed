"""Sharing a budget among blocks, or among their sites."""

from lightning_prune.allocation.base import Allocation, Uniform
from lightning_prune.allocation.by_importance import (
    CFSPSigmoid,
    Inverse,
    Proportional,
    read_importance,
)
from lightning_prune.allocation.counts import Pool, most
from lightning_prune.allocation.exact import meet
from lightning_prune.allocation.from_file import FromFile
from lightning_prune.allocation.global_standardised import GlobalStandardised
from lightning_prune.allocation.owl import OWL
from lightning_prune.allocation.per_block import PerBlock, PerSite
from lightning_prune.allocation.per_part import PerPart
from lightning_prune.allocation.sensitivity import Sensitivity

__all__ = [
    "OWL",
    "Allocation",
    "CFSPSigmoid",
    "FromFile",
    "GlobalStandardised",
    "Inverse",
    "PerBlock",
    "PerPart",
    "PerSite",
    "Pool",
    "Proportional",
    "Sensitivity",
    "Uniform",
    "meet",
    "most",
    "read_importance",
]
