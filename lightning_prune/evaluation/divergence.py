"""How far variants of a model are from it at its output, run side by side, block by block.

Axes: B windows of a batch, C some of the places in a window, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.sweep import HiddenStates, divergence_of, evaluating, placement_of
from lightning_prune.tokens import IGNORED

__all__ = ["Divergence"]

Choices = Sequence[Hashable]
"""By block, which of its variants; None: the block as it is."""


AT_ONCE = 32
"""So many variants go side by side: each may have hidden states of its own."""


class _Group(NamedTuple):
    """Variants that are alike up to here: their numbers, and the states they share."""

    members: list[int]
    states: HiddenStates


class Divergence:
    """The Kullback-Leibler divergence of variants of a model from the model itself.

    Of each place where a next token is asked for, Σ p (ln p - ln q) over the vocabulary, p of the
    model and q of the variant. Variants go through the blocks side by side: those that are alike up
    to a block are run up to there once, a block is on the device once for all of them, and the
    model's own logits are made once for all of them from its last hidden states, which are kept.

    Args:
        model: stays as it is.
        batches: what the family's task reads; one window in each lets windows be counted singly.
        device: where blocks run.

    Attributes:
        places: how many tokens each batch predicts.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Mapping[str, torch.Tensor]],
        device: torch.device,
    ) -> None:
        self.anatomy = Anatomy(model)
        with evaluating(model), torch.no_grad():
            states = HiddenStates(self.anatomy, batches, placement_of(self.anatomy, device))
            with states.from_end():
                self._ends = [states.kept(states.entering(i)) for i in states.indices]
                targets = [states.targets(i) for i in states.indices]
        self.places = [int((target != IGNORED).sum()) for target in targets]
        self._states = states

    @torch.no_grad()
    def of(
        self,
        variants: Sequence[Choices],
        changed: Callable[[Block, Hashable], None],
        windows: int = 0,
    ) -> list[list[float]]:
        """Of each variant, for each window the sum over its places, in nats.

        Args:
            variants: what they are made of.
            changed: makes a copy of a block, on the device, the variant that is chosen.
            windows: how many windows to take, in whole batches; 0: all.
        """
        found: list[list[float]] = []
        with evaluating(self.anatomy.model):
            for first in range(0, len(variants), AT_ONCE):
                found += self._of(variants[first : first + AT_ONCE], changed, windows)
        return found

    def _of(
        self,
        variants: Sequence[Choices],
        changed: Callable[[Block, Hashable], None],
        windows: int,
    ) -> list[list[float]]:
        states = self._states
        with states.from_start(windows):
            groups = [_Group(list(range(len(variants))), states.beside())]
            for block in self.anatomy.blocks:
                groups = self._behind(block, groups, variants, changed)
            with states.placement.outside():
                return self._at_head(groups, len(variants))

    def _behind(
        self,
        block: Block,
        groups: Sequence[_Group],
        variants: Sequence[Choices],
        changed: Callable[[Block, Hashable], None],
    ) -> list[_Group]:
        """The groups behind a block; one whose members choose differently is divided."""
        parted: dict[Hashable, list[_Group]] = {}
        for group in groups:
            chosen = [variants[i][block.index] for i in group.members]
            for choice in dict.fromkeys(chosen):
                members = [i for i, c in zip(group.members, chosen, strict=True) if c == choice]
                parted.setdefault(choice, []).append(_Group(members, group.states.beside()))
        with self._states.placement.block(block):
            for choice, with_it in parted.items():
                variant = block
                if choice is not None:
                    variant = block.copied(self.anatomy.model.config)
                    changed(variant, choice)
                for group in with_it:
                    group.states.advance(variant)
        return [group for with_it in parted.values() for group in with_it]

    def _at_head(self, groups: Sequence[_Group], variants: int) -> list[list[float]]:
        """The divergence at the head, some places at a time."""
        sums: list[list[float]] = [[] for _ in range(variants)]
        for i in groups[0].states.indices:
            target = self._states.targets(i)
            totals = [torch.zeros(len(target), dtype=torch.float64) for _ in groups]
            for columns_C, part in self._states.parts(target):
                asked = part != IGNORED
                ends = self._ends[i].to(self._states.device)
                log_p = self._logits(i, ends, columns_C).float().log_softmax(dim=-1)
                for group, total_B in zip(groups, totals, strict=True):
                    logits = self._logits(i, group.states.entering(i), columns_C)
                    loss = divergence_of(log_p, logits).cpu() * asked
                    total_B += loss.reshape(len(loss), -1).double().sum(dim=1)
            for group, total_B in zip(groups, totals, strict=True):
                for member in group.members:
                    sums[member] += total_B.tolist()
        return sums

    def _logits(
        self, index: int, hidden: torch.Tensor, columns_C: torch.Tensor | None
    ) -> torch.Tensor:
        if columns_C is not None:
            hidden = hidden[:, columns_C.to(hidden.device)]
        return self._states.logits(index, hidden, columns_C)
