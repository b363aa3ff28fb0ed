"""The family of methods that cut whole units off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.method import Decision
from lightning_prune.selection import keep_units, removed_count

__all__ = ["UnitPruning"]


class UnitPruning(PruningCallback):
    """Methods that remove whole units, so that the model gets smaller.

    Args:
        ratio: fraction of the units to remove from each block, in (0, 1). Needed unless a plan is
            given.
        attention: remove GQA groups: query heads with the key/value head that they share.
        mlp: remove MLP neurons.
        settings: the arguments of `PruningCallback`.

    Raises:
        ValueError: the ratio is out of range, or neither attention nor mlp is asked for.
    """

    survey = True
    cuts = True

    def __init__(
        self, ratio: float | None = None, attention: bool = True, mlp: bool = True, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.ratio, self.attention, self.mlp = ratio, attention, mlp
        if self.allocation is not None and self.allocation.per == "site":
            raise ValueError(
                f"allocation={self.allocation!r} shares among single matrices, and units reach "
                "over several; take an allocation per block"
            )
        if not self.kinds:
            raise ValueError("attention=False, mlp=False leaves nothing to prune; set one of them")
        if self.plan is None and (ratio is None or not 0 < ratio < 1):
            raise ValueError(
                f"ratio={ratio} is not in (0, 1); it is the fraction of units removed, and 1 "
                "would remove every GQA group and every neuron"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of units asked for."""
        return ("group",) * self.attention + ("neuron",) * self.mlp

    @property
    def budget(self) -> float:
        """The ratio."""
        return self.ratio or 0.0

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a ratio too small to remove a unit of a kind that was asked for."""
        for kind, switch in (("group", "attention"), ("neuron", "mlp")):
            if kind not in self.kinds:
                continue
            most = max(block.units(kind) for block in self.blocks(anatomy))
            if removed_count(most, self.budget) == 0:
                advice = (
                    f"Ask for ratio={math.ceil(1000 / most) / 1000} or more, or set {switch}=False."
                    if most > 1
                    else f"Its only one must stay; set {switch}=False."
                )
                raise ValueError(
                    f"ratio={self.ratio} of {most} {kind}s in a block removes none. {advice}"
                )

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """Keep the highest scores of each kind; of the share, as many whole units as fit."""
        return Decision(
            kept={
                kind: keep_units(score_U, removed_count(score_U.numel(), share))
                for kind, score_U in scores.items()
            }
        )
