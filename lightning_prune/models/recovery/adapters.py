"""What is trained instead of the model's own weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from lightning_prune.anatomy import Anatomy
from lightning_prune.checks import known_arguments
from lightning_prune.models.recovery.nf4 import NF4Linear
from lightning_prune.models.recovery.ranks import ranks_of_blocks
from lightning_prune.models.recovery.sparse_lora import lora_layer
from lightning_prune.plan import Plan
from lightning_prune.surgery import check_masks

__all__ = ["Adapter", "AdapterName", "LoRA", "QLoRA", "named_adapter"]

AdapterName = Literal["lora", "qlora", "none"]


class Adapter(ABC):
    """Small trainable weights added to a model, whose own weights are frozen.

    Attributes:
        shards: whether the model can be spread over processes with it (FSDP2).
    """

    shards: ClassVar[bool] = True

    @abstractmethod
    def attach(
        self,
        model: PreTrainedModel,
        plan: Plan | None = None,
        device: torch.device | None = None,
    ) -> PeftModel:
        """Freeze the model, add the trainable weights, and return the peft model around it.

        Args:
            model: a plain Hugging Face model, already pruned if it is to be. Changed in place.
            plan: what was pruned; where it masks a weight, no update may fill the zeros.
            device: where the model will be trained.
        """

    def check(
        self, model: PreTrainedModel, plan: Plan | None = None, sharded: bool = False
    ) -> None:
        """Refuse what cannot be trained, before anything expensive is done.

        Args:
            model: the plain model, before it is pruned, or after.
            plan: what has been pruned so far.
            sharded: whether the model will be spread over processes.

        Raises:
            ValueError: it will be, and cannot be with this adapter; or what a subclass says.
        """
        if sharded and not self.shards:
            raise ValueError(
                f"{type(self).__name__} cannot be used with fsdp2: its weights are quantised as a "
                "whole and cannot be spread over processes. Use strategy: ddp, where every device "
                "holds them all, or adapter: lora."
            )


class LoRA(Adapter):
    """Low-rank updates of Linears, through peft; of a masked Linear, under its mask.

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3. On
    masked weights: `lightning_prune.models.recovery.sparse_lora`.

    Args:
        r: rank of the update.
        alpha: the update is scaled by alpha / r.
        dropout: probability of dropping an input of the update.
        target_modules: names of Linears, or the ends of their names, e.g. ["q_proj", "v_proj"];
            None: every Linear of every block.
        importance: the path of an importance.json of `lightning-prune importance` about the dense
            model: the ranks of blocks are in proportion to their importance, with `r` as the mean,
            and the same alpha / r. (Wang et al., "CFSP", arXiv 2409.13199, importance-guided
            recovery; its coarse importance is the measure "angular".)
    """

    @known_arguments
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

    def attach(
        self,
        model: PreTrainedModel,
        plan: Plan | None = None,
        device: torch.device | None = None,
    ) -> PeftModel:
        """See `Adapter.attach`.

        Raises:
            ValueError: see `check`.
        """
        self.check(model, plan)
        ranks = self._ranks(model, plan)
        config = LoraConfig(
            task_type="CAUSAL_LM" if model.can_generate() else None,
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self._targets(model),
            exclude_modules=_empty(model) or None,
            rank_pattern=ranks,
            alpha_pattern={name: self.alpha * rank / self.r for name, rank in ranks.items()},
        )
        self._prepare(model, device)
        layer: Any = lora_layer(model, plan)
        config._register_custom_module({nn.Linear: layer})
        return get_peft_model(model, config)

    def check(
        self, model: PreTrainedModel, plan: Plan | None = None, sharded: bool = False
    ) -> None:
        """See `Adapter.check`.

        Raises:
            ValueError: the model is to be sharded, and cannot be; a name in `target_modules`
                matches no Linear of the model, or the head whose weight is that of the embeddings;
                or the plan, or the file of importance, does not fit the model.
        """
        super().check(model, plan, sharded)
        if plan is not None:
            check_masks(model, plan)
        self._targets(model)
        self._ranks(model, plan)

    def _prepare(self, model: PreTrainedModel, device: torch.device | None) -> None:
        """Change the model's own weights before they are frozen."""

    def _targets(self, model: PreTrainedModel) -> list[str]:
        linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        sites = [site.path for site in Anatomy(model).family.sites]
        if self.target_modules is None:
            return sites
        if not self.target_modules:
            raise ValueError(
                f"{type(self).__name__}'s target_modules is empty, so nothing would be trained. "
                f"Leave it out for all Linears; each block has: {', '.join(sites)}."
            )
        for target in self.target_modules:
            matched = [n for n in linears if n == target or n.endswith(f".{target}")]
            if not matched:
                raise ValueError(
                    f"{type(self).__name__}'s target_modules names {target!r}, which matches no "
                    f"Linear of {type(model).__name__}. Each of its blocks has: {', '.join(sites)}."
                )
            embeddings = model.get_input_embeddings()
            if any(linears[name].weight is embeddings.weight for name in matched):
                raise ValueError(
                    f"{type(self).__name__}'s target_modules names {target!r}, whose weight is "
                    "also that of the embeddings: an update of one would change both when it is "
                    f"merged. Leave it out; each block has: {', '.join(sites)}."
                )
        return self.target_modules

    def _ranks(self, model: PreTrainedModel, plan: Plan | None) -> dict[str, int]:
        """The rank of each block, by a pattern of names; empty if all have the same."""
        if self.importance is None:
            return {}
        return ranks_of_blocks(model, plan, self.r, self.importance)


class QLoRA(LoRA):
    """LoRA on a model whose blocks' Linears are quantised to NF4 (4.13 bits a weight).

    Source: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv 2305.14314.

    The pruned model is quantised when it has been loaded and pruned, so the CPU's memory holds it
    whole, and the device the bits. Head and embeddings stay as they are. Zeros are exactly zero in
    NF4, and updates of masked weights are masked.

    Merging makes plain weights of the bits and adds the update: the saved model is the one that was
    trained and validated, and keeps the rounding to NF4. The arguments are those of `LoRA`.
    """

    shards = False

    def _prepare(self, model: PreTrainedModel, device: torch.device | None) -> None:
        for block in Anatomy(model).blocks:
            for site in block.sites:
                if site.module.weight.numel():
                    parent, _, name = site.name.rpartition(".")
                    setattr(model.get_submodule(parent), name, NF4Linear(site.module, device))


def named_adapter(name: AdapterName) -> Adapter | None:
    """The adapter of that name with its defaults; "none" is None."""
    makers: dict[str, Callable[[], Adapter | None]]
    makers = {"lora": LoRA, "qlora": QLoRA, "none": lambda: None}
    return makers[name]()


def _empty(model: PreTrainedModel) -> list[str]:
    """Linears of blocks that lost their attention or their MLP: there is nothing to update."""
    sites = [site for block in Anatomy(model).blocks for site in block.sites]
    return [site.name for site in sites if not site.module.weight.numel()]
