"""Streaming accumulators over calibration data; they see tensors only."""

from lightning_prune.evidence.base import InputEvidence, moved
from lightning_prune.evidence.cross_gram import CrossGram, PairedGram
from lightning_prune.evidence.gradient import GradientEvidence, SquaredGradientEvidence
from lightning_prune.evidence.gram import Gram
from lightning_prune.evidence.influence import INFLUENCE, BlockEvidence
from lightning_prune.evidence.input_mean import InputMean
from lightning_prune.evidence.input_moments import AliasedMoments, InputMoments, Moments
from lightning_prune.evidence.input_norm import InputNorm

__all__ = [
    "AliasedMoments",
    "INFLUENCE",
    "BlockEvidence",
    "CrossGram",
    "GradientEvidence",
    "Gram",
    "InputEvidence",
    "InputMean",
    "InputMoments",
    "InputNorm",
    "Moments",
    "PairedGram",
    "SquaredGradientEvidence",
    "moved",
]
