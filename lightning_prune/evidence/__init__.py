"""Streaming accumulators over calibration data; they see tensors only."""

from lightning_prune.evidence.base import (
    Evidence,
    InputEvidence,
    PairedEvidence,
    Propagate,
    Sweep,
    moved,
)
from lightning_prune.evidence.cross_gram import CrossGram, PairedGram, for_rows
from lightning_prune.evidence.gradients import Gradients, WeightEvidence
from lightning_prune.evidence.gram import Gram
from lightning_prune.evidence.influence import BlockEvidence, Measure, Part, Removal, measure
from lightning_prune.evidence.input_mean import InputMean
from lightning_prune.evidence.input_moments import AliasedMoments, InputMoments, Moments
from lightning_prune.evidence.input_norm import InputNorm
from lightning_prune.evidence.objective import (
    Feature,
    HeadObjective,
    Logit,
    Objective,
    OfLogits,
    Places,
    TaskLoss,
)
from lightning_prune.evidence.relevance import Relevance
from lightning_prune.evidence.token_weight import TokenWeight
from lightning_prune.evidence.trial import Trial

__all__ = [
    "AliasedMoments",
    "BlockEvidence",
    "CrossGram",
    "Evidence",
    "Feature",
    "Gradients",
    "Gram",
    "HeadObjective",
    "InputEvidence",
    "InputMean",
    "InputMoments",
    "InputNorm",
    "Logit",
    "Measure",
    "Moments",
    "Objective",
    "OfLogits",
    "PairedEvidence",
    "PairedGram",
    "Part",
    "Places",
    "Propagate",
    "Relevance",
    "Removal",
    "Sweep",
    "TaskLoss",
    "TokenWeight",
    "Trial",
    "WeightEvidence",
    "for_rows",
    "measure",
    "moved",
]
