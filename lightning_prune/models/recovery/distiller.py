"""A teacher and a student at work: the loss of a batch.

Axes: B windows of a batch, T tokens of a window, N tokens that are asked for, C some of these,
D hidden size, V what the head tells apart (the vocabulary). Where the head sees one row for each
element of a batch, as a classifier's does, there is no axis T in what it reads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lightning_prune.anatomy.tasks import LOGITS
from lightning_prune.models.recovery.student import Batch, Student, blocks_of
from lightning_prune.sweep.placement import replaced_forward

__all__ = ["Distiller"]


class Distiller:
    """A teacher at work; see `Distillation` for what it computes.

    It is no torch module, so that nothing finds the teacher in the module that it teaches.

    Args:
        student: the module, ready to train.
        teacher: frozen, in evaluation mode, where it is to run.
        weight: share of the teacher's distribution in the loss.
        temperature: what the logits are divided by.
        hidden: weight of the loss of hidden states; 0: none.
        device: where the teacher is; None: where the student is.
        chunk: tokens whose logits are held at once; None: as many as 256 MiB hold.
        gone: blocks of the teacher that the student does not have.
    """

    def __init__(
        self,
        student: Student,
        teacher: PreTrainedModel,
        *,
        weight: float,
        temperature: float,
        hidden: float = 0.0,
        device: torch.device | None = None,
        chunk: int | None = None,
        gone: Collection[int] = (),
    ) -> None:
        self.student, self.teacher = student, teacher
        self.weight, self.temperature, self.hidden = weight, temperature, hidden
        self.device = device
        self.chunk = chunk or max(1, LOGITS // student.head(teacher).weight.shape[0])
        self.blocks: list[nn.Module] = []
        self.teaching: list[nn.Module] = []
        if hidden:
            self.blocks = blocks_of(student.base)
            numbered = enumerate(blocks_of(teacher))
            self.teaching = [block for index, block in numbered if index not in gone]

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The loss of a batch, and its parts as they are before they are weighed.

        Args:
            batch: as the student takes it.
        """
        student = self.student
        assert student.model is not None
        inputs = student.inputs(batch)
        last_BTD, states = _states(student.model, student.head(student.base), inputs, self.blocks)
        place = self.device or last_BTD.device
        with torch.no_grad():
            there = {
                name: value.to(place) if isinstance(value, torch.Tensor) else value
                for name, value in inputs.items()
            }
            taught_BTD, goals = _states(
                self.teacher, student.head(self.teacher), there, self.teaching
            )
        target_BT = student.targets(batch)
        asked_BT = target_BT != -100
        sums = self._sums(last_BTD[asked_BT], taught_BTD[asked_BT.to(place)], target_BT[asked_BT])
        cross_entropy, kl = (sums / asked_BT.sum().clamp(min=1)).unbind()
        loss = (1 - self.weight) * cross_entropy
        loss = loss + self.weight * self.temperature**2 * kl
        parts = {"cross_entropy": cross_entropy, "kl": kl}
        if self.hidden:
            keep_BT = student.attended(batch)
            pairs = zip(states, goals, strict=True)
            parts["hidden"] = torch.stack([_distance(a, b, keep_BT) for a, b in pairs]).mean()
            loss = loss + self.hidden * parts["hidden"]
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
        logits_CV = self._logits(self.student.base, last_CD).float()
        cross_entropy = F.cross_entropy(logits_CV, target_C, reduction="sum")
        with torch.no_grad():
            goal_CV = self._logits(self.teacher, taught_CD).to(logits_CV.device).float()
            goal_CV = F.log_softmax(goal_CV / self.temperature, dim=-1)
        ours_CV = F.log_softmax(logits_CV / self.temperature, dim=-1)
        kl = F.kl_div(ours_CV, goal_CV, reduction="sum", log_target=True)
        return torch.stack([cross_entropy, kl])

    def _logits(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        """The head by itself, as the model's own forward ends."""
        logits = self.student.head(model)(hidden)
        cap = getattr(model.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)


def _states(
    model: nn.Module, head: nn.Module, inputs: dict[str, Any], blocks: Sequence[nn.Module]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What the head would read, (B, T, D), and the outputs of some blocks; no logits are made.

    Args:
        model: what is called: the peft model or the sharded one, with its hooks.
        head: of the plain model in it.
        inputs: what the model takes, on its device.
        blocks: of the plain model.
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

    with ExitStack() as hooks, replaced_forward([head], instead):
        for block in blocks:
            hooks.callback(block.register_forward_hook(listen).remove)
        model(**inputs)
    return read[0], seen


def _distance(
    state_BTD: torch.Tensor, goal_BTD: torch.Tensor, keep_BT: torch.Tensor | None
) -> torch.Tensor:
    """Squared distance over the goal's square, mean over the tokens that count (None: all)."""
    goal_BTD = goal_BTD.to(state_BTD.device)
    if keep_BT is None:
        keep_BT = torch.ones(state_BTD.shape[:-1], dtype=torch.bool, device=state_BTD.device)
    goal_ND = goal_BTD[keep_BT].float()
    difference_N = (state_BTD[keep_BT].float() - goal_ND).square().sum(dim=-1)
    size_N = goal_ND.square().sum(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    return (difference_N / size_N).mean()
