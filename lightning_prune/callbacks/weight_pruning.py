"""The family of methods that set single weights to zero.

Axes: O output features, I input features, V vocabulary, D hidden size.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, get_args

import torch

from lightning_prune.anatomy import Anatomy, Block, Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import GradientEvidence
from lightning_prune.method import Decision, Scores
from lightning_prune.selection import (
    Pattern,
    Scope,
    Ties,
    keep_globally,
    keep_in_scope,
    keep_n_of_m,
    removed_count,
    scope_size,
)
from lightning_prune.sweep import Order

__all__ = ["WeightPruning", "check_choices"]


class WeightPruning(PruningCallback):
    """Methods that set single weights to zero, in every Linear of the chosen blocks.

    Args:
        sparsity: fraction of zeros, in [0, 1). Give this or `pattern`.
        pattern: "N:M": N weights KEPT of every M consecutive inputs, as in "2:4".
        scope: within what the lowest scores go: each "row" (output feature), the whole "matrix",
            each "block" of 128 columns and all rows, or, "balanced", rows that share the matrix's
            exact count within one weight; "global": all that is pruned, by the scores of the dense
            model; None: the method's own ("matrix" in place of "global" under an allocation).
        ties: "exact" removes the count asked for; "reference" is the rule of the authors' codes
            in matrices and blocks, one more and every tie at the threshold, to compare with.
        order: which changes the evidence of a Linear sees: "block", those of all earlier blocks;
            "linear", those of all earlier Linears, in one forward pass; "none", those of none, in
            one forward pass.
        include: patterns of names, as in "*.mlp.*"; Linears that match none are left alone.
        exclude: patterns of names, as in "*.o_proj" or "model.layers.0.*", to be left alone.
        head: prune the output layer (lm_head) too.
        embeddings: prune the input embeddings too: the smallest values of every token's.
        settings: the arguments of `PruningCallback`.

    Raises:
        ValueError: sparsity out of range, a pattern that is none, both, or neither.
    """

    own_scope: Scope = "row"

    def __init__(
        self,
        sparsity: float | None = None,
        pattern: str | int | None = None,
        scope: Scope | None = None,
        ties: Ties = "exact",
        order: Order = "block",
        include: str | Sequence[str] = ("*",),
        exclude: str | Sequence[str] = (),
        head: bool = False,
        embeddings: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.sparsity, self.pattern = sparsity, pattern
        self.scope, self.ties, self.order = scope, ties, order
        self.include, self.exclude = _names(include), _names(exclude)
        self.head, self.embeddings = head, embeddings
        check_choices(self, scope=(None, *get_args(Scope)), ties=get_args(Ties))
        check_choices(self, order=get_args(Order))
        if self.allocation is not None and self.allocation.per == "unit":
            raise ValueError(
                f"allocation={self.allocation!r} compares units, and {type(self).__name__} removes "
                "single weights; take an allocation per block or per site"
            )
        if self.plan is None and (sparsity is None) == (pattern is None):
            raise ValueError(
                f"{type(self).__name__} takes sparsity=0.5 or pattern='2:4', one of the two; got "
                f"sparsity={sparsity}, pattern={pattern!r}"
            )
        if sparsity is not None and not (isinstance(sparsity, (int, float)) and 0 <= sparsity < 1):
            raise ValueError(
                f"sparsity={sparsity!r} is not in [0, 1); it is the fraction of weights set to "
                "zero, 0.5 for half of them"
            )
        if pattern is not None and self.allocation is not None:
            raise ValueError(
                f"pattern={pattern!r} fixes the sparsity of every block, and allocation="
                f"{self.allocation!r} would vary it; give sparsity, or leave the allocation out"
            )
        if pattern is not None and scope is not None:
            raise ValueError(
                f"pattern={pattern!r} compares within groups of consecutive inputs, not within a "
                f"{scope}; leave scope out"
            )
        self._pattern = Pattern.parse(pattern) if pattern is not None else None
        self._check_survey()

    def _check_survey(self) -> None:
        """Refuse what a decision on all blocks at once rules out."""
        if self.scope == "global" and self.allocation is not None:
            raise ValueError(
                f"scope='global' compares the weights of all blocks, and allocation="
                f"{self.allocation!r} gives each block a share of its own; take one of them"
            )
        if self.scope == "global" and type(self).prune_block is not WeightPruning.prune_block:
            raise ValueError(
                f"{type(self).__name__} decides on a block before it scores the next; scope="
                "'global' needs all scores first, and is for methods that change no weight"
            )
        sees_all = self.scope == "global" or _by_gradients(type(self).evidence)
        if sees_all and self.allocation is not None and self.allocation.per == "site":
            raise ValueError(
                f"allocation={self.allocation!r} shares among single matrices, and "
                f"{type(self).__name__} decides by block; take an allocation per block"
            )

    @property
    def survey(self) -> bool:  # type: ignore[override]
        """Whether all blocks are scored on the dense model before one is pruned."""
        return self._compares_all or _by_gradients(self.evidence)

    @property
    def _compares_all(self) -> bool:
        return self._pattern is None and self.effective_scope == "global"

    @property
    def fraction(self) -> float:
        """Fraction of zeros."""
        return self._pattern.sparsity if self._pattern else float(self.sparsity or 0)

    def budget(self, anatomy: Anatomy) -> float:
        """Fraction of zeros."""
        return self.fraction

    # --- what is pruned ---

    def blocks(self, anatomy: Anatomy) -> list[Block]:
        """Blocks `layer_start` to `layer_end` and the head if asked for, with the sites to prune.

        Raises:
            ValueError: a pattern of a name matches nothing, or nothing is left.
        """
        blocks = super().blocks(anatomy)
        if self.head:
            blocks = [*blocks, anatomy.head]
        names = [site.name for block in blocks for site in block.sites]
        for setting, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise ValueError(
                        f"{setting}={pattern!r} matches no Linear; names are like {names[0]} "
                        f"and {names[-1]}, and * stands for anything"
                    )
        parts = [block.part(filter(self._wanted, block.sites)) for block in blocks]
        parts = [block for block in parts if block.sites]
        if not parts:
            raise ValueError(
                f"include={list(self.include)}, exclude={list(self.exclude)} leave no Linear to "
                "prune; name fewer"
            )
        return parts

    def _wanted(self, site: Site) -> bool:
        return any(fnmatchcase(site.name, p) for p in self.include) and not any(
            fnmatchcase(site.name, p) for p in self.exclude
        )

    def outside(self, anatomy: Anatomy) -> dict[str, torch.Tensor]:
        """The mask of the input embeddings, if they are asked for."""
        if not self.embeddings:
            return {}
        table = anatomy.model.get_input_embeddings()  # type: ignore[operator]
        name = next(n for n, p in anatomy.model.named_parameters() if p is table.weight)
        return {name: self._keep(table.weight.detach().abs().float(), self.fraction, "row")}

    # --- what is refused ---

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a pattern that does not divide some width, and a sparsity that removes nothing."""
        sites = [site for block in self.blocks(anatomy) for site in block.sites]
        self._check_head(anatomy)
        if self._pattern is not None:
            self._check_widths(sites, self._pattern)
            return
        sizes = [scope_size(s.module.weight.shape, self.effective_scope) for s in sites]
        most = sum(sizes) if self._compares_all else max(sizes)
        if removed_count(most, self.fraction) == 0:
            where = "all blocks" if self._compares_all else f"a {self.effective_scope}"
            raise ValueError(
                f"sparsity={self.sparsity} of {most} weights in {where} removes none. "
                f"Ask for sparsity={math.ceil(1000 / most) / 1000} or more."
            )

    def _check_head(self, anatomy: Anatomy) -> None:
        table = anatomy.model.get_input_embeddings()  # type: ignore[operator]
        if self.head and anatomy.head.module.weight is table.weight:
            raise ValueError(
                "this model's head shares its weights with the input embeddings: head=True would "
                "prune both. Say embeddings=True instead, if that is meant."
            )

    def _check_widths(self, sites: Sequence[Site], pattern: Pattern) -> None:
        for site in sites:
            if site.module.in_features % pattern.group:
                raise ValueError(
                    f"{pattern} needs input features divisible by {pattern.group}; {site.name} has "
                    f"{site.module.in_features}. ({pattern} keeps {pattern.kept} of every "
                    f"{pattern.group}.) Use sparsity={pattern.sparsity:g}, a pattern that divides "
                    f"it, or exclude=['*.{site.name.rpartition('.')[2]}']."
                )

    # --- scores and masks ---

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Score every weight of every site."""
        return {
            site.weight_name: self.score_site(
                site, evidence.get(site.weight_name, evidence.get(site.table.reads))
            )
            for site in block.sites
        }

    @abstractmethod
    def score_site(self, site: Site, evidence: Any) -> torch.Tensor:
        """Score one site's weight, (O, I), from the evidence of its input, or its gradients."""

    def decide(
        self,
        blocks: Sequence[Block],
        scores: Scores,
        shares: Mapping[int, float],
        budget: float,
    ) -> dict[int, Decision]:
        """After a survey: each block for itself, or all together."""
        if not self._compares_all:
            return super().decide(blocks, scores, shares, budget)
        together = {name: score for b in blocks for name, score in scores[b.index].items()}
        keep = keep_globally(together, budget, self.ties)
        return {b.index: Decision({name: keep[name] for name in scores[b.index]}) for b in blocks}

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """Keep by pattern, or by exact count in the scope."""
        return Decision({name: self._keep(score, share) for name, score in scores.items()})

    def _keep(
        self, score_OI: torch.Tensor, share: float, scope: Scope | None = None
    ) -> torch.Tensor:
        if self._pattern is not None:
            return keep_n_of_m(score_OI, self._pattern)
        return keep_in_scope(score_OI, share, scope or self.effective_scope, self.ties)

    @property
    def effective_scope(self) -> Scope:
        """Within what scores are compared."""
        if self.scope is None and self.own_scope == "global" and self.allocation is not None:
            return "matrix"
        return self.scope or self.own_scope


def _names(patterns: str | Sequence[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def check_choices(method: WeightPruning, **allowed: Sequence[Any]) -> None:
    """Refuse a setting that is none of those that there are; each by its name.

    Raises:
        ValueError: names the setting, its value, and what is allowed.
    """
    for name, choices in allowed.items():
        value = getattr(method, name)
        if value not in choices:
            said = ", ".join(map(repr, choices))
            raise ValueError(f"{name}={value!r} is unknown; {name} is one of {said}")


def _by_gradients(evidence: Any) -> bool:
    return isinstance(evidence, type) and issubclass(evidence, GradientEvidence)
