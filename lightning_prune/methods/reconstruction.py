"""The family of methods that choose weights and correct those that stay, in one act.

Axes: O output features of all sites that share an input, I input features, R rows of one site, C
consecutive columns.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from lightning_prune.anatomy import Block, Site
from lightning_prune.evidence import Gram, InputEvidence
from lightning_prune.methods.base import Decision, check_finite
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.selection import removed_count

__all__ = ["Problem", "Reconstruction", "Solution"]


Choose = Callable[..., torch.Tensor]
"""(scores (O, C), columns, fraction to remove) to the mask of what stays."""


class Problem(NamedTuple):
    """The sites that share one input, as one layer.

    Attributes:
        weight_OI: their weights, one above the other, fp32.
        evidence: what the method's evidence gave for the input, on the same device.
        rows: how many rows each site has.
        share: the fraction to remove.
    """

    weight_OI: torch.Tensor
    evidence: Any
    rows: tuple[int, ...]
    share: float

    def by_site(self, keep: Callable[[torch.Tensor, float], torch.Tensor]) -> Choose:
        """A selection that looks at each site's rows alone, and leaves out what is zero already.

        What an earlier method has removed goes first, so that it is not revived.

        Args:
            keep: scores of one site, (R, C), and the fraction to remove, to a mask.
        """
        alive_OI = self.weight_OI != 0
        whole = bool(alive_OI.all())

        def choose(
            score_OC: torch.Tensor, columns: slice = slice(None), share: float | None = None
        ) -> torch.Tensor:
            share = self.share if share is None else share
            if whole:
                return torch.cat([keep(part, share) for part in score_OC.split(self.rows)])
            alive_OC = alive_OI[:, columns]
            score_OC = score_OC.masked_fill(~alive_OC, -1)  # scores are not negative
            return torch.cat([keep(part, share) for part in score_OC.split(self.rows)]) & alive_OC

        return choose


class Solution(NamedTuple):
    """What stays of a problem: the new weights, their mask, and the scores before selection."""

    weight_OI: torch.Tensor
    keep_OI: torch.Tensor
    score_OI: torch.Tensor


class Reconstruction(WeightPruning):
    """Methods that solve for the weights that stay, given the Gram matrix of a layer's input.

    Sites that share their input share the matrix and all that is made from it; their rows are
    solved together, in fp32 whatever the model's type.
    """

    @property
    def evidence(self) -> InputEvidence:
        """The Gram matrix of every input."""
        return Gram()

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Choose what stays, and its new values."""

    def prune_block(
        self, block: Block, evidence: Mapping[str, Any], share: float
    ) -> tuple[Decision, dict[str, torch.Tensor]]:
        """Solve for all sites of a block, input by input."""
        decision, scores = Decision(), dict[str, torch.Tensor]()
        for name, sites in block.inputs().items():
            check_finite(block, {name: _diagonal(evidence[name])}, "squares")
            solution = self.solve(_problem(sites, evidence[name], share))
            rows = [site.module.out_features for site in sites]
            parts = zip(sites, *(tensor.split(rows) for tensor in solution), strict=True)
            for site, weight_OI, keep_OI, score_OI in parts:
                kept_OI = torch.where(keep_OI, weight_OI, 0)
                decision.weights[site.weight_name] = kept_OI.to(site.module.weight.dtype)
                decision.masks[site.weight_name] = keep_OI.contiguous()
                scores[site.weight_name] = score_OI
        return decision, scores

    def check_scope(self) -> None:
        """Refuse scopes that reach further than the columns that are chosen at a time."""
        if self.scope == "matrix":
            raise ValueError(
                f"{type(self).__name__} chooses some columns at a time, from the weights as "
                "corrected so far: scope is 'row', 'balanced' or 'columns', not 'matrix'"
            )

    def columns_share(self, columns: slice, share: float) -> float:
        """The fraction to remove from some columns, so that whole rows lose their exact count."""
        if self.effective_scope != "row":
            return share
        removed = removed_count(columns.stop, share) - removed_count(columns.start, share)
        return removed / (columns.stop - columns.start)

    def score_site(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        """The scores before selection, of one site alone."""
        return self.solve(_problem([site], evidence, self.fraction)).score_OI


def _problem(sites: Sequence[Site], evidence: Any, share: float) -> Problem:
    weight_OI = torch.cat([site.module.weight.detach().float() for site in sites])
    rows = tuple(site.module.out_features for site in sites)
    return Problem(weight_OI, evidence, rows, share)


def _diagonal(evidence: Any) -> torch.Tensor:
    """The mean squares of an input, in the Gram matrix that comes alone or first."""
    gram_II = evidence if isinstance(evidence, torch.Tensor) else evidence[0]
    return gram_II.diagonal()
