"""Pruning methods as Lightning callbacks, one file each, and their companions."""

from lightning_prune.callbacks.ablation import Ablation
from lightning_prune.callbacks.afr import AFR, WeightAFR
from lightning_prune.callbacks.alps import ALPS
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.callbacks.cfsp import CFSP
from lightning_prune.callbacks.drop_blocks import DropBlocks
from lightning_prune.callbacks.flap import FLAP
from lightning_prune.callbacks.gqa_taylor import GQATaylor
from lightning_prune.callbacks.magnitude import Magnitude
from lightning_prune.callbacks.magnitude_sp import MagnitudeSP
from lightning_prune.callbacks.observers.base import PruneObserver
from lightning_prune.callbacks.observers.evaluate import Evaluate
from lightning_prune.callbacks.observers.save_pretrained import SavePretrained
from lightning_prune.callbacks.observers.write_report import WriteReport
from lightning_prune.callbacks.progressive import Progressive
from lightning_prune.callbacks.reconstruction import Problem, Reconstruction, Solution
from lightning_prune.callbacks.refer import ReFer, WeightReFer
from lightning_prune.callbacks.residual_fit import ResidualFit
from lightning_prune.callbacks.ria import RIA
from lightning_prune.callbacks.snip import SNIP, WeightSNIP
from lightning_prune.callbacks.sparsegpt import SparseGPT
from lightning_prune.callbacks.structured_obs import StructuredOBS
from lightning_prune.callbacks.taylor import Taylor
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.callbacks.wanda import Wanda
from lightning_prune.callbacks.wanda_sp import WandaSP
from lightning_prune.callbacks.weight_pruning import WeightPruning

__all__ = [
    "AFR",
    "ALPS",
    "Ablation",
    "CFSP",
    "FLAP",
    "DropBlocks",
    "Evaluate",
    "GQATaylor",
    "Magnitude",
    "MagnitudeSP",
    "Problem",
    "Progressive",
    "PruneObserver",
    "PruningCallback",
    "RIA",
    "ReFer",
    "Reconstruction",
    "ResidualFit",
    "SNIP",
    "SavePretrained",
    "Solution",
    "SparseGPT",
    "StructuredOBS",
    "Taylor",
    "UnitPruning",
    "Wanda",
    "WandaSP",
    "WeightAFR",
    "WeightPruning",
    "WeightReFer",
    "WeightSNIP",
    "WriteReport",
]
