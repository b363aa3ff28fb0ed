"""A pruned model as a Hugging Face folder, and back.

Importing this room makes the classes of pruned models known to transformers' Auto classes.
"""

from lightning_prune.export.hf import check_folder, save
from lightning_prune.export.load import load
from lightning_prune.export.registry import pruned_classes, register_all
from lightning_prune.export.semi_structured import to_semi_structured

__all__ = ["check_folder", "load", "pruned_classes", "register_all", "save", "to_semi_structured"]

register_all()
