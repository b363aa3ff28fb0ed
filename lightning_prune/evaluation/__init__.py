"""What a model is worth: perplexity and speed."""

from lightning_prune.evaluation.perplexity import perplexity
from lightning_prune.evaluation.speed import tokens_per_second

__all__ = ["perplexity", "tokens_per_second"]
