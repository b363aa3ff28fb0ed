"""What is trained instead of the model's own weights."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from lightning_prune.allocation import read_importance
from lightning_prune.anatomy import Anatomy

__all__ = ["Adapter", "LoRA"]


class Adapter(ABC):
    """Small trainable weights added to a model, whose own weights are frozen."""

    @abstractmethod
    def attach(self, model: PreTrainedModel) -> PeftModel:
        """Freeze the model, add the trainable weights, and return the peft model around it.

        Args:
            model: a plain Hugging Face causal LM, already pruned if it is to be. Changed in place.
        """


class LoRA(Adapter):
    """Low-rank updates of Linears, through peft.

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3.

    Args:
        r: rank of the update.
        alpha: the update is scaled by alpha / r.
        dropout: probability of dropping an input of the update.
        target_modules: names of Linears, or the ends of their names, e.g. ["q_proj", "v_proj"];
            None: every Linear of every block.
        importance: the path of an importance.json of `lightning-prune importance`: blocks that are
            more important get higher ranks, with `r` as the mean, and the same alpha / r. (Wang et
            al., "CFSP", arXiv 2409.13199, importance-guided recovery.)
    """

    def __init__(
        self,
        r: int = 8,
        alpha: int = 16,
        dropout: float = 0.0,
        target_modules: list[str] | None = None,
        importance: str | None = None,
    ) -> None:
        if r < 1:
            raise ValueError(f"LoRA needs a rank r of at least 1, got {r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"LoRA's dropout must be in [0, 1), got {dropout}.")
        self.r = r
        self.alpha = alpha
        self.dropout = dropout
        self.target_modules = target_modules
        self.importance = importance

    def attach(self, model: PreTrainedModel) -> PeftModel:
        """See `Adapter.attach`.

        Raises:
            ValueError: a name in `target_modules` matches no Linear of the model, or the file of
                importance does not fit it.
        """
        ranks = self._ranks(model)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self._targets(model),
            exclude_modules=_empty(model) or None,
            rank_pattern=ranks,
            alpha_pattern={name: self.alpha * rank / self.r for name, rank in ranks.items()},
        )
        return get_peft_model(model, config)

    def _targets(self, model: PreTrainedModel) -> list[str]:
        linears = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
        sites = [site.path for site in Anatomy(model).family.sites]
        if self.target_modules is None:
            return sites
        for target in self.target_modules:
            if not any(name == target or name.endswith(f".{target}") for name in linears):
                raise ValueError(
                    f"LoRA's target_modules names {target!r}, which matches no Linear of "
                    f"{type(model).__name__}. Each of its blocks has: {', '.join(sites)}."
                )
        return self.target_modules

    def _ranks(self, model: PreTrainedModel) -> dict[str, int]:
        """By a pattern of names, the rank of each block; empty if all have the same."""
        if self.importance is None:
            return {}
        blocks = Anatomy(model).blocks
        values = read_importance(self.importance, [b.index for b in blocks], len(blocks))
        shares = [max(value, 0.0) for value in values]
        if not sum(shares):
            raise ValueError(f"no block in {self.importance} has an importance above 0")
        wishes = [self.r * len(shares) * share / sum(shares) for share in shares]
        return {
            rf"{re.escape(block.name)}\..*": rank
            for block, rank in zip(blocks, whole_ranks(wishes), strict=True)
        }


def whole_ranks(wishes: Sequence[float]) -> list[int]:
    """Whole numbers of 1 or more that sum up to what the wishes do, by largest remainders.

    Where many wishes are below 1, the sum is larger.
    """
    ranks = [max(int(wish), 1) for wish in wishes]
    remainders = [wish - rank for wish, rank in zip(wishes, ranks, strict=True)]
    left = round(sum(wishes)) - sum(ranks)
    for index in sorted(range(len(ranks)), key=lambda i: -remainders[i])[: max(left, 0)]:
        ranks[index] += 1
    return ranks


def _empty(model: PreTrainedModel) -> list[str]:
    """Linears of blocks that lost their attention or their MLP: there is nothing to update."""
    sites = [site for block in Anatomy(model).blocks for site in block.sites]
    return [site.name for site in sites if not site.module.weight.numel()]
