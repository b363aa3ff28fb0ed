"""The family of methods that set single weights to zero.

Axes: O output features, I input features, V vocabulary, D hidden size.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from lightning_prune.allocation import Allocation, Uniform
from lightning_prune.anatomy import Anatomy, Block, Site
from lightning_prune.anatomy.choosing import as_patterns, matching
from lightning_prune.evidence import Propagate
from lightning_prune.methods.base import Decision, Method, Scores
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

__all__ = ["WeightPruning"]


class WeightPruning(Method):
    """Methods that set single weights to zero, in every Linear of the chosen blocks.

    Args:
        sparsity: fraction of zeros, in [0, 1). Give this or `pattern`.
        pattern: "N:M": N weights KEPT of every M consecutive inputs, as in "2:4".
        scope: within what the lowest scores go: each "row" (output feature), the whole "matrix",
            every 128 "columns" and all rows, or, "balanced", rows that share the matrix's exact
            count within one weight; "global": all that is pruned, by the scores of the dense model;
            None: the method's own, which its documentation says.
        ties: "exact" removes the count asked for; "reference" is the rule of the authors' codes
            in matrices and columns, one more and every tie at the threshold, to compare with.
        propagate: which changes the evidence of a Linear sees: "block", those of all earlier
            blocks; "layer", those of all earlier Linears, in one forward pass; "none", those of
            none, in one forward pass.
        include: patterns of names, as in "*.mlp.*"; Linears that match none are left alone.
        exclude: patterns of names, as in "*.o_proj" or "model.layers.0.*", to be left alone.
        head: prune the output layer (lm_head) too.
        embeddings: prune the input embeddings too: the smallest values of every token's.
        allocation: how the budget is shared among blocks; `Uniform()`: the same share for all.

    Raises:
        ValueError: sparsity out of range, a pattern that is none, both, or neither.
    """

    own_scope: ClassVar[Scope] = "row"
    score_bytes = 6.0  # scores, mask, and what looking for a threshold takes

    sparsity: float | None = None
    pattern: str | int | None = None
    scope: Scope | None = None
    ties: Ties = "exact"
    propagate: Propagate = "block"
    include: str | Sequence[str] = ("*",)
    exclude: str | Sequence[str] = ()
    head: bool = False
    embeddings: bool = False
    allocation: Allocation = Uniform()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.include, self.exclude = as_patterns(self.include), as_patterns(self.exclude)
        if self.plan is None and (self.sparsity is None) == (self.pattern is None):
            raise ValueError(
                f"{type(self).__name__} takes sparsity=0.5 or pattern='2:4', one of the two; got "
                f"sparsity={self.sparsity}, pattern={self.pattern!r}"
            )
        self.require(
            "sparsity",
            self.sparsity is None or 0 <= self.sparsity < 1,
            "it is in [0, 1): the fraction of weights set to zero, 0.5 for half of them",
        )
        dense_head = not (self.head and self.block_fit and self.block_fit.to_the_end)
        self.require("head", dense_head, 'it is False: target="logits" is what the dense head says')
        fitted = self.embeddings and self.block_fit is not None
        self.require("embeddings", not fitted, "it is False: blocks are fitted from the dense ones")
        self._check_pattern()
        self._check_allocation()

    def _check_pattern(self) -> None:
        if self.pattern is None:
            return
        Pattern.parse(self.pattern)
        if not isinstance(self.effective_allocation, Uniform):
            raise ValueError(
                f"pattern={self.pattern!r} fixes the sparsity of every block, and allocation="
                f"{self.allocation!r} would vary it; give sparsity, or leave the allocation out"
            )
        if self.scope is not None:
            raise ValueError(
                f"pattern={self.pattern!r} compares within groups of consecutive inputs, not in a "
                f"{self.scope}; leave scope out"
            )

    def _check_allocation(self) -> None:
        allocation = self.effective_allocation
        if allocation.per == "unit":
            raise ValueError(
                f"allocation={allocation!r} compares units, and {type(self).__name__} removes "
                "single weights; take an allocation per block or per site"
            )
        if self.scope == "global" and not isinstance(allocation, Uniform):
            raise ValueError(
                f"scope='global' compares the weights of all blocks, and allocation="
                f"{allocation!r} gives each block a share of its own; take one of them"
            )
        if self.scope == "global" and type(self).prune_block is not Method.prune_block:
            raise ValueError(
                f"{type(self).__name__} decides on a block before it scores the next; scope="
                "'global' needs all scores first, and is for methods that change no weight"
            )
        if (self.scope == "global" or self._by_gradients) and allocation.per == "site":
            raise ValueError(
                f"allocation={allocation!r} shares among single matrices, and "
                f"{type(self).__name__} decides by block; take an allocation per block"
            )

    # --- how it works ---

    @property
    def survey(self) -> bool:
        """Whether all blocks are scored on the dense model before one is pruned."""
        return self._compares_all or self._by_gradients

    @property
    def propagation(self) -> Propagate:
        """Which changes the evidence of a Linear sees."""
        return self.propagate

    @property
    def effective_allocation(self) -> Allocation:
        """The allocation given."""
        return self.allocation

    @property
    def effective_scope(self) -> Scope:
        """Within what scores are compared: by matrix in place of "global" where shares differ."""
        alike = isinstance(self.effective_allocation, Uniform)
        if self.scope is None and self.own_scope == "global" and not alike:
            return "matrix"
        return self.scope or self.own_scope

    @property
    def n_of_m(self) -> Pattern | None:
        """The pattern, if there is one."""
        return None if self.pattern is None else Pattern.parse(self.pattern)

    @property
    def fraction(self) -> float:
        """Fraction of zeros."""
        return self.n_of_m.sparsity if self.n_of_m else float(self.sparsity or 0)

    @property
    def _compares_all(self) -> bool:
        return self.pattern is None and self.effective_scope == "global"

    @property
    def _by_gradients(self) -> bool:
        return any(evidence.sweep == "backward" for evidence in self.requests())

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
        parts = matching(blocks, self.include, self.exclude)
        if not parts:
            raise ValueError(
                f"include={list(self.include)}, exclude={list(self.exclude)} leave no Linear to "
                "prune; name fewer"
            )
        return parts

    def outside(self, anatomy: Anatomy) -> dict[str, torch.Tensor]:
        """The mask of the input embeddings, if they are asked for."""
        if not self.embeddings:
            return {}
        table_VD = anatomy.token_table
        assert table_VD is not None, "refused by check"
        name = next(n for n, p in anatomy.model.named_parameters() if p is table_VD)
        return {name: self._keep(table_VD.detach().abs().float(), self.fraction, "row")}

    # --- what is refused ---

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a pattern that does not divide some width, and a sparsity that removes nothing."""
        super().check(anatomy)
        sites = [site for block in self.blocks(anatomy) for site in block.sites]
        self._check_outside(anatomy)
        if self.n_of_m is not None:
            self._check_widths(sites, self.n_of_m)
            return
        sizes = [scope_size(s.module.weight.shape, self.effective_scope) for s in sites]
        most = sum(sizes) if self._compares_all else max(sizes)
        if removed_count(most, self.fraction) == 0:
            where = "all blocks" if self._compares_all else f"a {self.effective_scope}"
            raise ValueError(
                f"sparsity={self.sparsity} of {most} weights in {where} removes none. "
                f"Ask for sparsity={math.ceil(1000 / most) / 1000} or more."
            )

    def _check_outside(self, anatomy: Anatomy) -> None:
        model, table_VD = type(anatomy.model).__name__, anatomy.token_table
        if self.embeddings and table_VD is None:
            raise ValueError(f"embeddings=True, and {model} has no table of token embeddings")
        if self.head and anatomy.head.module.weight is table_VD:
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
        if self.n_of_m is not None:
            return keep_n_of_m(score_OI, self.n_of_m)
        return keep_in_scope(score_OI, share, scope or self.effective_scope, self.ties)
