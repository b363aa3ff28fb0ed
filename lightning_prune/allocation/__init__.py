"""Sharing a budget among blocks."""

from lightning_prune.allocation.base import Allocation, Uniform
from lightning_prune.allocation.exact import meet
from lightning_prune.allocation.owl import OWL
from lightning_prune.allocation.per_block import PerBlock

__all__ = ["OWL", "Allocation", "PerBlock", "Uniform", "meet"]
