"""What a model is worth: perplexity, speed, and what it says."""

from lightning_prune.evaluation.generation import continuation
from lightning_prune.evaluation.perplexity import perplexity
from lightning_prune.evaluation.speed import tokens_per_second

__all__ = ["continuation", "perplexity", "tokens_per_second"]
