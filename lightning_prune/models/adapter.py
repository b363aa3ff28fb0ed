"""What is trained instead of the model's own weights."""

from __future__ import annotations

from abc import ABC, abstractmethod

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

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
    """

    def __init__(
        self,
        r: int = 8,
        alpha: int = 16,
        dropout: float = 0.0,
        target_modules: list[str] | None = None,
    ) -> None:
        if r < 1:
            raise ValueError(f"LoRA needs a rank r of at least 1, got {r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"LoRA's dropout must be in [0, 1), got {dropout}.")
        self.r = r
        self.alpha = alpha
        self.dropout = dropout
        self.target_modules = target_modules

    def attach(self, model: PreTrainedModel) -> PeftModel:
        """See `Adapter.attach`.

        Raises:
            ValueError: a name in `target_modules` matches no Linear of the model.
        """
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self._targets(model),
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
