"""What blocks are trained towards: hidden states of the dense model, or what it says in the end.

Axes: C some columns of the tokens, K classes, N predictions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional as F

from lightning_prune.repair.block_fit import BlockFit, relative_error
from lightning_prune.sweep.states import HiddenStates
from lightning_prune.tokens import IGNORED

__all__ = ["Goal", "Predictions", "divergence_of", "goal_of"]


Error = Callable[[torch.Tensor], torch.Tensor]
"""The summed error of hidden states, or of some columns of them."""


class Goal(ABC):
    """How far a model is from what is wanted, by what a batch's hidden states have become.

    Args:
        states: of the pruned model.
        dense_states: what is wanted, behind the blocks that are trained.
    """

    def __init__(self, states: HiddenStates, dense_states: HiddenStates) -> None:
        self.states, self.dense_states = states, dense_states

    @abstractmethod
    def parts(self, index: int) -> Iterator[tuple[torch.Tensor | slice, Error]]:
        """Columns of a batch's hidden states, and the error that they make, some at a time."""

    @abstractmethod
    def count(self, index: int) -> int:
        """Over how much of a batch the error is a sum."""

    def error(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """The error of a batch."""
        zero = torch.zeros((), device=hidden.device)
        return sum((error(hidden[:, columns]) for columns, error in self.parts(index)), zero)

    def gradient(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Of the error, with respect to the hidden states; they need no graph."""
        gradient = torch.zeros_like(hidden)
        for columns, error in self.parts(index):
            seen = hidden[:, columns].detach().requires_grad_()
            gradient[:, columns] = torch.autograd.grad(error(seen), seen)[0]
        return gradient


class Stream(Goal):
    """The dense model's hidden states, token by token."""

    def parts(self, index: int) -> Iterator[tuple[torch.Tensor | slice, Error]]:
        """The relative error, all at once."""
        target_BTD, keep_BT = self.dense_states.entering(index), self.states.keep(index)
        yield slice(None), lambda hidden_BTD: relative_error(hidden_BTD, target_BTD, keep_BT)

    def count(self, index: int) -> int:
        """Tokens that count."""
        keep_BT = self.states.keep(index)
        return self.states.shape(index).numel() if keep_BT is None else int(keep_BT.sum())


class Predictions(Goal):
    """What the dense model says next: the divergence from it, where a next token is asked for.

    The head sees some columns at a time, so that the logits of all are never there at once.
    """

    def parts(self, index: int) -> Iterator[tuple[torch.Tensor | slice, Error]]:
        """By columns."""
        wanted = self.dense_states.entering(index)
        for columns_C, target in self.states.parts(self._places(index)):
            here = slice(None) if columns_C is None else columns_C.to(wanted.device)
            asked = (target != IGNORED).to(wanted.device)
            with torch.no_grad():
                logits = self.states.logits(index, wanted[:, here], columns_C)
            log_p = logits.float().log_softmax(dim=-1)

            def error(
                hidden: torch.Tensor,
                columns_C: torch.Tensor | None = columns_C,
                log_p: torch.Tensor = log_p,
                asked: torch.Tensor = asked,
            ) -> torch.Tensor:
                logits = self.states.logits(index, hidden, columns_C)
                return divergence_of(log_p, logits).where(asked, 0).sum()

            yield here, error

    def count(self, index: int) -> int:
        """Predictions that are asked for."""
        return int((self._places(index) != IGNORED).sum())

    def _places(self, index: int) -> torch.Tensor:
        """Where a model answers: any number but `IGNORED`; the right answers need not be known."""
        task = self.states.anatomy.task
        return task.answered(self.states.batches[index], last=False)


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
