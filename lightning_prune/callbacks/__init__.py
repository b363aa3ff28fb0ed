"""Pruning methods as Lightning callbacks, one file each, and their companions."""

from lightning_prune.callbacks.base import PruneObserver, PruningCallback
from lightning_prune.callbacks.gqa_taylor import GQATaylor
from lightning_prune.callbacks.magnitude import Magnitude
from lightning_prune.callbacks.save_pretrained import SavePretrained
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.callbacks.wanda import Wanda
from lightning_prune.callbacks.weight_pruning import WeightPruning
from lightning_prune.callbacks.write_report import WriteReport

__all__ = [
    "GQATaylor",
    "Magnitude",
    "PruneObserver",
    "PruningCallback",
    "SavePretrained",
    "UnitPruning",
    "Wanda",
    "WeightPruning",
    "WriteReport",
]
