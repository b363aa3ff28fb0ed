"""What a model is worth: perplexity, tasks, speed, and what it says."""

from lightning_prune.evaluation.accuracy import Classified, classify
from lightning_prune.evaluation.agreement import Agreement, agreement
from lightning_prune.evaluation.completions import Sampling, completions
from lightning_prune.evaluation.generation import (
    check_prompt,
    check_room,
    continuation,
    plain_settings,
    unique_share,
)
from lightning_prune.evaluation.perplexity import perplexity, window_losses
from lightning_prune.evaluation.rates import Rate, mean_of, rate_of
from lightning_prune.evaluation.results import (
    Answer,
    Evaluation,
    ForwardSpeed,
    Size,
    Speed,
    TaskScore,
    TextPerplexity,
)
from lightning_prune.evaluation.scorers.base import Function, Scorer, as_scorer
from lightning_prune.evaluation.speed import (
    check_numbers,
    forward_speed,
    generation_speed,
    tokens_per_second,
)
from lightning_prune.evaluation.zero_shot import SEVEN, check_tasks, zero_shot

__all__ = [
    "SEVEN",
    "Agreement",
    "Answer",
    "Classified",
    "Evaluation",
    "ForwardSpeed",
    "Function",
    "Rate",
    "Sampling",
    "Scorer",
    "Size",
    "Speed",
    "TaskScore",
    "TextPerplexity",
    "agreement",
    "as_scorer",
    "check_numbers",
    "check_prompt",
    "check_room",
    "check_tasks",
    "classify",
    "completions",
    "continuation",
    "forward_speed",
    "generation_speed",
    "mean_of",
    "perplexity",
    "window_losses",
    "plain_settings",
    "rate_of",
    "tokens_per_second",
    "unique_share",
    "zero_shot",
]
