"""What plans, checkpoints and results say, without running a model: torch and safetensors only."""

from lightning_prune.analysis.plan_check import PlanCheck
from lightning_prune.analysis.scores import ScoreReport, compare_scores
from lightning_prune.analysis.structure import Structure, structure
from lightning_prune.analysis.zeros import MatrixZeros, SparsityReport, sparsity

__all__ = [
    "MatrixZeros",
    "PlanCheck",
    "ScoreReport",
    "SparsityReport",
    "Structure",
    "compare_scores",
    "sparsity",
    "structure",
]
