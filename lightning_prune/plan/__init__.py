"""The decisions of a pruning run as a value: saved, read and applied apart from the model."""

from lightning_prune.plan.join import joined
from lightning_prune.plan.numbering import Kept
from lightning_prune.plan.plan import Plan

__all__ = ["Kept", "Plan", "joined"]
