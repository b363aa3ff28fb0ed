"""What recovery asks of the module that it trains, whatever the class of that is.

Axes: B elements of a batch, T tokens of a window or patches of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from lightning_prune.anatomy import family_of
from lightning_prune.models.loading import Source
from lightning_prune.models.plans import Plans

__all__ = ["Batch", "Model", "Rebuild", "Student", "blocks_of", "plain"]

Batch = Mapping[str, torch.Tensor]
Model = PreTrainedModel | PeftModel
Rebuild = Callable[[Mapping[str, torch.Tensor] | None], Model]
"""Makes a model of a fixed structure from a state dict; of None, without weights."""


class Student(Protocol):
    """A module that is trained; `PrunableModule` is one, and says more of each name."""

    auto_class: ClassVar[Any]
    path: str | None
    trust_remote_code: bool
    attn_implementation: str | None
    model: Model | None
    plans: Plans
    rebuild: Rebuild | None

    @property
    def placement(self) -> str:
        """Where weights are that are not at work: in "memory", or in files, "checkpoint"."""

    @property
    def trainer(self) -> Any:
        """Lightning's."""

    @property
    def source(self) -> Source | None:
        """Where its model comes from; None: it starts from random weights."""

    @property
    def base(self) -> PreTrainedModel:
        """Its plain model."""

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What of a batch its model is called with."""

    def targets(self, batch: Batch) -> torch.Tensor:
        """What the head is to say of each row that it reads; -100 where nothing is asked."""

    def attended(self, batch: Batch) -> torch.Tensor | None:
        """Which rows of the hidden states mean something, (B, T) bool; None: all."""

    def head(self, model: PreTrainedModel) -> Any:
        """The layer of a plain model that makes the logits."""

    def check_teacher(self, name: str, source: Source) -> None:
        """Refuse a teacher whose head does not say what its own says."""

    def place(self, model: PreTrainedModel) -> None:
        """Put another model where its own is trained."""


def plain(model: Model) -> PreTrainedModel:
    """The Hugging Face model itself, without the peft model around it."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, PreTrainedModel)
    return base


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """The blocks of a plain model, also where adapters stand in front of their Linears."""
    return list(family_of(model.config.model_type).blocks_of(model).values())
