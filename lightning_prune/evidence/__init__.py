"""Streaming accumulators over calibration data; they see tensors only."""

from lightning_prune.evidence.base import InputEvidence
from lightning_prune.evidence.gradient import GradientEvidence
from lightning_prune.evidence.input_norm import InputNorm

__all__ = ["GradientEvidence", "InputEvidence", "InputNorm"]
