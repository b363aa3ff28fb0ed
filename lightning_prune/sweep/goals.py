"""What blocks are trained towards: hidden states of the dense model, or what it says in the end.

Axes: C some columns of the tokens, K classes, N predictions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from lightning_prune.repair.block_fit import BlockFit, relative_error
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.tokens import IGNORED

__all__ = ["Goal", "Predictions", "divergence_of", "goal_of"]


class Goal(ABC):
    """How far a model is from what is wanted, by what a batch's hidden states have become.

    Args:
        states: of the pruned model.
        dense_states: what is wanted, behind the blocks that are trained.
    """

    def __init__(self, states: HiddenStates, dense_states: HiddenStates) -> None:
        self.states, self.dense_states = states, dense_states

    @abstractmethod
    def parts(self, index: int, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """Numbers that add up to the error of a batch; each can be differentiated by itself."""

    @abstractmethod
    def count(self, index: int) -> int:
        """Over how much of a batch the error is a sum."""

    def error(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """The error of a batch."""
        zero = torch.zeros((), device=hidden.device)
        return sum((part.detach() for part in self.parts(index, hidden)), zero)

    def gradient(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Of the error, with respect to the hidden states; they need no graph."""
        hidden = hidden.detach().requires_grad_()
        gradient = torch.zeros_like(hidden)
        for part in self.parts(index, hidden):
            gradient += torch.autograd.grad(part, hidden)[0]
        return gradient


class Stream(Goal):
    """The dense model's hidden states, token by token."""

    def parts(self, index: int, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """The relative error, all at once."""
        yield relative_error(hidden, self.dense_states.entering(index), self.states.keep(index))

    def count(self, index: int) -> int:
        """Tokens that count."""
        keep_BT = self.states.keep(index)
        return self.states.shape(index).numel() if keep_BT is None else int(keep_BT.sum())


class Predictions(Goal):
    """What the dense model says next: the divergence from it, where a next token is asked of.

    The head sees some columns at a time, so that the logits of all are never there at once.
    """

    def parts(self, index: int, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """By columns."""
        wanted = self.dense_states.entering(index)
        for columns_C, target in self.states.parts(self.states.targets(index)):
            asked = (target != IGNORED).to(hidden.device)
            with torch.no_grad():
                wanted_NK = self._logits(index, wanted, columns_C)[asked].float()
            ours_NK = self._logits(index, hidden, columns_C)[asked]
            yield divergence_of(wanted_NK.log_softmax(dim=-1), ours_NK).sum()

    def count(self, index: int) -> int:
        """Predictions that are asked for."""
        return int((self.states.targets(index) != IGNORED).sum())

    def _logits(
        self, index: int, hidden: torch.Tensor, columns_C: torch.Tensor | None
    ) -> torch.Tensor:
        if columns_C is not None:
            hidden = hidden[:, columns_C.to(hidden.device)]
        return self.states.logits(index, hidden, columns_C)


def goal_of(fit: BlockFit, states: HiddenStates, dense_states: HiddenStates) -> Goal:
    """What a fit asks for."""
    return (Predictions if fit.to_the_end else Stream)(states, dense_states)


def divergence_of(log_p: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Σ p (ln p - ln q) over the last axis, fp32.

    Args:
        log_p: ln p, (…, K), fp32.
        logits: whose softmax is q, (…, K).
    """
    log_q = logits.float().log_softmax(dim=-1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
