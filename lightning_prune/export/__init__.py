"""A pruned model as a Hugging Face folder, and back.

Importing this room makes the classes of pruned models known to transformers' Auto classes.
"""

from lightning_prune.export.hf import load, save
from lightning_prune.export.registry import pruned_classes, register_all

__all__ = ["load", "pruned_classes", "register_all", "save"]

register_all()
