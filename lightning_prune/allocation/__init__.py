"""Sharing a budget among blocks."""

from lightning_prune.allocation.base import Allocation, Uniform

__all__ = ["Allocation", "Uniform"]
