"""The family of methods that choose weights and correct those that stay, in one act.

Axes: O output features of all sites that share an input, I input features, R rows of one site, C
consecutive columns.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from lightning_prune import distributed
from lightning_prune.anatomy import Block, Site
from lightning_prune.evidence import Gram, InputEvidence, for_rows
from lightning_prune.methods.base import Decision, check_finite
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.repair import rows_of
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

    def by_site(
        self, keep: Callable[[torch.Tensor, float], torch.Tensor], apart: bool = True
    ) -> Choose:
        """A selection that looks at each site's rows alone, and leaves out what is zero already.

        What an earlier method has removed goes first, so that it is not revived.

        Args:
            keep: scores of one site, (R, C), and the fraction to remove, to a mask.
            apart: False: `keep` looks at each row alone, and may be shown those of all sites.
        """
        alive_OI = self.weight_OI != 0
        whole = bool(alive_OI.all())
        rows = self.rows if apart else (len(alive_OI),)

        def choose(
            score_OC: torch.Tensor, columns: slice = slice(None), share: float | None = None
        ) -> torch.Tensor:
            share = self.share if share is None else share
            alive_OC = alive_OI[:, columns]
            if not whole:
                score_OC = score_OC.masked_fill(~alive_OC, -1)  # scores are not negative
            keep_OC = _stacked([keep(part, share) for part in score_OC.split(rows) if len(part)])
            return keep_OC if whole else keep_OC & alive_OC

        return choose


class Solution(NamedTuple):
    """What stays of a problem: the new weights, their mask, and the scores before selection."""

    weight_OI: torch.Tensor
    keep_OI: torch.Tensor
    score_OI: torch.Tensor


class _Piece(NamedTuple):
    """What one process solves at once: sites that share an input, or some of their rows.

    Attributes:
        input: its name.
        sites: that share it.
        rows: of their weights, one above the other.
        cost: of one factorisation, and of what is done with each row, in about the same unit.
    """

    input: str
    sites: tuple[Site, ...]
    rows: slice
    cost: float

    def weights(self) -> list[torch.Tensor]:
        """The rows of each site that are in it, some perhaps with none."""
        parts, first = [], 0
        for site in self.sites:
            start, stop = self.rows.start - first, self.rows.stop - first
            parts.append(site.module.weight.detach()[max(start, 0) : max(stop, 0)])
            first += site.module.out_features
        return parts


class Reconstruction(WeightPruning):
    """Methods that solve for the weights that stay, given the Gram matrix of a layer's input.

    Sites that share their input share the matrix and all that is made from it; their rows are
    solved together, in fp32 whatever the model's type. Several processes divide the inputs of a
    block among themselves, or rows.
    """

    @property
    def evidence(self) -> InputEvidence:
        """The Gram matrix of every input."""
        return Gram()

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Choose what stays, and its new values."""

    def rows_apart(self, sites: Sequence[Site], share: float) -> bool:
        """Whether `solve` finds the same, bit for bit, for rows that come without the others.

        It takes a mask that looks at rows alone, and products of `lightning_prune.repair.rows`.

        Args:
            sites: whose rows.
            share: the fraction to remove.
        """
        return False

    def prune_block(
        self, block: Block, evidence: Mapping[str, Any], share: float
    ) -> tuple[Decision, dict[str, torch.Tensor]]:
        """Solve for all sites of a block; scores are left out where only some are here."""
        pieces = self._pieces(block, share)
        owners = distributed.shared_out([piece.cost for piece in pieces])
        solved = distributed.together(
            lambda: [
                self._solved(block, piece, evidence[piece.input], share)
                if owner == distributed.rank()
                else None
                for piece, owner in zip(pieces, owners, strict=True)
            ]
        )
        parts: dict[str, list[Solution]] = {site.weight_name: [] for site in block.sites}
        for piece, owner, solutions in zip(pieces, owners, solved, strict=True):
            agreed = self._agreed(piece, owner, solutions)
            for site, solution in zip(piece.sites, agreed, strict=True):
                parts[site.weight_name].append(solution)
        decision, scores = Decision(agreed=True), dict[str, torch.Tensor]()
        for name in list(parts):
            weight_OI, keep_OI, score_OI = map(_stacked, zip(*parts.pop(name), strict=True))
            decision.weights[name], decision.masks[name] = weight_OI, keep_OI
            if self._has_scores:
                scores[name] = score_OI
        return decision, scores

    def _pieces(self, block: Block, share: float) -> list[_Piece]:
        """What is solved at once; the same list in every process."""
        count = distributed.world_size() if self.rows_apart(block.sites, share) else 1
        pieces = []
        for name, sites in block.inputs().items():
            total, width = sum(s.module.out_features for s in sites), sites[0].module.in_features
            for rows in (rows_of(total, part, count) for part in range(count)):
                if size := rows.stop - rows.start:
                    pieces.append(_Piece(name, tuple(sites), rows, width**2 * (width + size)))
        return pieces

    def _solved(self, block: Block, piece: _Piece, evidence: Any, share: float) -> list[Solution]:
        """What stays of each site's rows."""
        check_finite(block, {piece.input: _diagonal(evidence)}, "squares")
        weights = piece.weights()
        rows = tuple(len(weight_OI) for weight_OI in weights)
        stacked_OI = torch.cat([weight_OI.float() for weight_OI in weights])
        solution = self.solve(Problem(stacked_OI, for_rows(evidence, piece.rows), rows, share))
        solved = []
        parts = zip(piece.sites, *(tensor.split(rows) for tensor in solution), strict=True)
        for site, weight_OI, keep_OI, score_OI in parts:
            kept_OI = torch.where(keep_OI, weight_OI, 0).to(site.module.weight.dtype)
            check_finite(block, {site.weight_name: score_OI}, "scores")
            solved.append(Solution(kept_OI, keep_OI.contiguous(), score_OI))
        return solved

    def _agreed(
        self, piece: _Piece, owner: int, solutions: list[Solution] | None
    ) -> list[Solution]:
        """A piece in every process, as its owner has solved it."""
        if solutions is None:
            solutions = [
                Solution(torch.empty_like(w), torch.empty_like(w, dtype=torch.bool), w.float())
                for w in piece.weights()
            ]
        for solution in solutions:
            for tensor in solution if self._has_scores else solution[:2]:
                distributed.broadcast_(tensor, owner)
        return solutions

    @property
    def _has_scores(self) -> bool:
        """Whether the scores of all rows are in every process."""
        return self.keep_scores or distributed.world_size() == 1

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
        weight_OI = site.module.weight.detach().float()
        return self.solve(Problem(weight_OI, evidence, (len(weight_OI),), self.fraction)).score_OI


def _stacked(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Parts of the rows, one above the other."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _diagonal(evidence: Any) -> torch.Tensor:
    """The mean squares of an input, in the Gram matrix that comes alone or first."""
    gram_II = evidence if isinstance(evidence, torch.Tensor) else evidence[0]
    return gram_II.diagonal()
