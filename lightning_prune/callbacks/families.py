"""The families of methods: those that set single weights to zero, and those that cut units off."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from lightning_prune.anatomy import Anatomy, Block, Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.method import Decision
from lightning_prune.selection import (
    Pattern,
    keep_n_of_m,
    keep_per_matrix,
    keep_per_row,
    keep_units,
    removed_count,
)

__all__ = ["UnitPruning", "WeightPruning"]


class WeightPruning(PruningCallback):
    """Methods that set single weights to zero, in every Linear of the chosen blocks.

    Args:
        sparsity: fraction of zeros, in [0, 1). Give this or `pattern`.
        pattern: "N:M": N weights KEPT of every M consecutive inputs, as in "2:4".
        settings: the arguments of `PruningCallback`.

    Raises:
        ValueError: sparsity out of range, a pattern that is none, both, or neither.
    """

    scope: ClassVar[str] = "row"

    def __init__(
        self, sparsity: float | None = None, pattern: str | int | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.sparsity, self.pattern = sparsity, pattern
        if self.plan is None and (sparsity is None) == (pattern is None):
            raise ValueError(
                f"{type(self).__name__} takes sparsity=0.5 or pattern='2:4', one of the two; got "
                f"sparsity={sparsity}, pattern={pattern!r}"
            )
        if sparsity is not None and not 0 <= sparsity < 1:
            raise ValueError(
                f"sparsity={sparsity} is not in [0, 1); it is the fraction of weights set to "
                "zero, 0.5 for half of them"
            )
        self._pattern = Pattern.parse(pattern) if pattern is not None else None

    @property
    def budget(self) -> float:
        """Fraction of zeros."""
        return self._pattern.sparsity if self._pattern else float(self.sparsity or 0)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a pattern that does not divide some width, and a sparsity that removes nothing."""
        sites = [site for block in self.blocks(anatomy) for site in block.sites]
        if self._pattern is None:
            most = max(s.module.in_features * self._rows_compared(s) for s in sites)
            if removed_count(most, self.budget) == 0:
                raise ValueError(
                    f"sparsity={self.sparsity} of {most} weights in a {self.scope} removes none. "
                    f"Ask for sparsity={math.ceil(1000 / most) / 1000} or more."
                )
            return
        for site in sites:
            if site.module.in_features % self._pattern.group:
                raise ValueError(
                    f"{self.pattern} needs input features divisible by {self._pattern.group}; "
                    f"{site.name} has {site.module.in_features}. Use sparsity="
                    f"{self._pattern.sparsity:g}, or a pattern that divides it."
                )

    def _rows_compared(self, site: Site) -> int:
        return site.module.out_features if self.scope == "matrix" else 1

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Score every weight of every site."""
        return {
            site.weight_name: self.score_site(site, evidence.get(site.table.reads))
            for site in block.sites
        }

    @abstractmethod
    def score_site(self, site: Site, evidence: Any) -> torch.Tensor:
        """Score one site's weight, (O, I), from the evidence of its input."""

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """Keep by pattern, or by exact count in the method's scope."""
        if self._pattern is not None:
            return Decision({n: keep_n_of_m(s, self._pattern) for n, s in scores.items()})
        keep = {"row": keep_per_row, "matrix": keep_per_matrix}[self.scope]
        return Decision({name: keep(score_OI, share) for name, score_OI in scores.items()})


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
