"""A teacher and a student at work: the loss of a batch.

Axes: B windows of a batch, T tokens of a window, N tokens that are asked for, C some of these,
D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lightning_prune.anatomy import family_of
from lightning_prune.anatomy.tasks import LOGITS
from lightning_prune.sweep.placement import replaced_forward
from lightning_prune.tokens import labels_of

if TYPE_CHECKING:
    from lightning_prune.models.causal_lm import CausalLM
    from lightning_prune.models.distillation import Distillation

__all__ = ["Distiller", "blocks_of"]

Batch = Mapping[str, torch.Tensor]


class Distiller:
    """A teacher at work; see `Distillation` for what it computes.

    It is no torch module, so that nothing finds the teacher in the module that it teaches.

    Args:
        settings: what is asked of it.
        module: the student, ready to train.
        teacher: frozen, in evaluation mode, where it is to run.
        gone: blocks of the teacher that the student does not have.
    """

    def __init__(
        self,
        settings: Distillation,
        module: CausalLM,
        teacher: PreTrainedModel,
        gone: set[int] | None = None,
    ) -> None:
        self.settings, self.module, self.teacher = settings, module, teacher
        self.device = torch.device(settings.device) if settings.device else None
        self.chunk = settings.chunk or max(1, LOGITS // teacher.config.vocab_size)
        self.blocks: list[nn.Module] = []
        self.teaching: list[nn.Module] = []
        if settings.hidden:
            self.blocks = blocks_of(module.base)
            theirs = enumerate(blocks_of(teacher))
            self.teaching = [block for index, block in theirs if index not in (gone or ())]

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The loss of a batch, and its parts as they are before they are weighed.

        Args:
            batch: as `CausalLM` takes it.
        """
        settings, module = self.settings, self.module
        assert module.model is not None
        last_BTD, states = _states(module.model, module.base, batch, self.blocks)
        place = self.device or last_BTD.device
        with torch.no_grad():
            there = {name: tensor.to(place) for name, tensor in batch.items()}
            taught_BTD, goals = _states(self.teacher, self.teacher, there, self.teaching)
        target_BS = labels_of(batch)[:, 1:]
        asked_BS = target_BS != -100
        sums = self._sums(
            last_BTD[:, :-1][asked_BS],
            taught_BTD[:, :-1][asked_BS.to(place)],
            target_BS[asked_BS],
        )
        cross_entropy, kl = (sums / asked_BS.sum().clamp(min=1)).unbind()
        loss = (1 - settings.weight) * cross_entropy
        loss = loss + settings.weight * settings.temperature**2 * kl
        parts = {"cross_entropy": cross_entropy, "kl": kl}
        if settings.hidden:
            keep_BT = batch.get("attention_mask", torch.ones_like(batch["input_ids"])) != 0
            pairs = zip(states, goals, strict=True)
            parts["hidden"] = torch.stack([_distance(a, b, keep_BT) for a, b in pairs]).mean()
            loss = loss + settings.hidden * parts["hidden"]
        return {"loss": loss, **parts}

    def _sums(
        self, last_ND: torch.Tensor, taught_ND: torch.Tensor, target_N: torch.Tensor
    ) -> torch.Tensor:
        """Cross entropy and divergence, (2,), summed over tokens, some of them at a time."""
        parts = [tensor.split(self.chunk) for tensor in (last_ND, taught_ND, target_N)]
        chunks = list(zip(*parts, strict=True))
        if len(chunks) == 1:
            return self._chunk(*chunks[0])
        # Nothing of a chunk is kept for the backward pass but its hidden states.
        sums = [checkpoint(self._chunk, *chunk, use_reentrant=False) for chunk in chunks]
        return torch.stack(sums).sum(dim=0)

    def _chunk(
        self, last_CD: torch.Tensor, taught_CD: torch.Tensor, target_C: torch.Tensor
    ) -> torch.Tensor:
        logits_CV = _logits(self.module.base, last_CD).float()
        cross_entropy = F.cross_entropy(logits_CV, target_C, reduction="sum")
        with torch.no_grad():
            goal_CV = _logits(self.teacher, taught_CD).to(logits_CV.device).float()
            goal_CV = F.log_softmax(goal_CV / self.settings.temperature, dim=-1)
        said_CV = F.log_softmax(logits_CV / self.settings.temperature, dim=-1)
        kl = F.kl_div(said_CV, goal_CV, reduction="sum", log_target=True)
        return torch.stack([cross_entropy, kl])


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder blocks, also where adapters stand in front of their Linears."""
    blocks = model.get_submodule(family_of(model.config.model_type).blocks)
    return list(blocks.children())


def _states(
    model: nn.Module, base: PreTrainedModel, batch: Batch, blocks: Sequence[nn.Module]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What the head would read, (B, T, D), and the outputs of some blocks; no logits are made.

    Args:
        model: what is called: the peft model or the sharded one, with its hooks.
        base: the plain model in it.
        batch: on the model's device.
        blocks: of `base`.
    """
    read: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []

    def instead(_: int) -> Any:
        def forward(hidden: torch.Tensor) -> torch.Tensor:
            read.append(hidden)
            return hidden

        return forward

    def listen(_: nn.Module, inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    head = base.get_output_embeddings()
    with ExitStack() as hooks, replaced_forward([head], instead):
        for block in blocks:
            hooks.callback(block.register_forward_hook(listen).remove)
        mask = batch.get("attention_mask")
        model(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False)
    return read[0], seen


def _logits(base: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """The head by itself, as the model's own forward ends."""
    logits = base.get_output_embeddings()(hidden)
    cap = getattr(base.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _distance(
    state_BTD: torch.Tensor, goal_BTD: torch.Tensor, keep_BT: torch.Tensor
) -> torch.Tensor:
    """Squared distance over the goal's square, mean over the tokens that count."""
    goal_ND = goal_BTD.to(state_BTD.device)[keep_BT].float()
    difference_N = (state_BTD[keep_BT].float() - goal_ND).square().sum(dim=-1)
    size_N = goal_ND.square().sum(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    return (difference_N / size_N).mean()
