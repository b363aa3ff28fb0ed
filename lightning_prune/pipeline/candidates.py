"""What a method would do to each block at several shares, made in one run and kept on disk.

The run is that of the method with the same share for every block. On the way it decides on each
block, and repairs it, at the other shares too, so that every candidate is made for the inputs that
it is to be expected to get: those behind earlier blocks that are pruned at the mean share.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune import surgery
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.methods.base import Decision, Scores
from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.pipeline.parts import readers_of
from lightning_prune.pipeline.provenance import work_of
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.pipeline.stages import Batch, Run
from lightning_prune.pipeline.unfinished import Stage, Unfinished
from lightning_prune.plan import Plan
from lightning_prune.repair import Repair
from lightning_prune.sweep import Placement, evaluating, home_device, placement_of

__all__ = ["Candidates", "make_candidates"]


class Candidates:
    """Decisions on the blocks of one model, by the share that is removed of a block.

    Args:
        blocks: that are decided on, with the sites that are changed.
        shares: what there is a decision at, all above 0.
        unfinished: where they are kept.
    """

    def __init__(
        self, blocks: Sequence[Block], shares: Sequence[float], unfinished: Unfinished
    ) -> None:
        self.shares = tuple(shares)
        self._blocks = {block.index: block for block in blocks}
        self._stages = {share: Stage(f"share {share}", blocks, unfinished) for share in shares}

    @property
    def complete(self) -> bool:
        """Whether all were there when this was made."""
        return all(len(stage.finished) == len(self._blocks) for stage in self._stages.values())

    def decision(self, index: int, share: float) -> Decision:
        """What is decided on the block of this index at a share."""
        return self._stages[share].decision(self._blocks[index])[0]

    def keep(self, part: Block, share: float, decision: Decision) -> None:
        """Keep what is decided on a block, or on some of its sites; it is written with the last."""
        self._stages[share].keep_decision(part, decision, {})

    def stitch(self, block: Block, chosen: Sequence[tuple[Block, float]]) -> None:
        """Make a dense block what was decided; nothing is cut, what goes is zero.

        Args:
            block: with all its sites.
            chosen: parts of it, by their sites, each with the share of its decision. What is
                decided on other sites at that share is left out.
        """
        for part, share in chosen:
            names, decision = {site.name for site in part.sites}, self.decision(block.index, share)
            mine = block.part(site for site in block.sites if site.name in names)
            for site in mine.sites:
                if f"{site.name}.bias" in decision.weights and site.module.bias is None:
                    surgery.give_bias(site.module)
            kept = {kind: index_U for kind, index_U in decision.kept.items() if mine.units(kind)}
            surgery.mask_block(mine, decision.masks, kept, decision.weights)


def make_candidates(
    model: nn.Module,
    method: UnitPruning | WeightPruning,
    batches: Iterable[Batch],
    shares: Sequence[float],
    folder: str | Path,
    device: torch.device | str | None = None,
    reuse: Reuse | None = None,
    apart: bool = False,
) -> Candidates:
    """Make what is not there yet of the candidates of a method; the model is used up by that.

    Args:
        model: dense; it is pruned at the mean share on the way.
        method: gives every block the mean share, its budget.
        batches: calibration data.
        shares: to decide at, all above 0; the mean share is one of them.
        folder: where they are kept, a block at a time; the same call goes on where it was stopped.
        device: where blocks run; None: where the model is.
        reuse: what earlier calls on copies of this model, with these batches, have collected.
        apart: attention and MLP each give the share; else neurons make up for what whole GQA groups
            leave a block off it by.

    Raises:
        ValueError: the method does not fit the model, or the folder has candidates of other work.
    """
    anatomy, batches, method = Anatomy(model), list(batches), copy.copy(method)
    method.block_fit = None  # what is stitched is not trained
    method.check(anatomy)
    blocks = method.blocks(anatomy)
    if isinstance(method, UnitPruning) and method.effective_repair is not None:
        blocks = _readers(method, blocks)
    work = work_of(model, method, batches) | {"shares": list(shares), "apart": apart}
    unfinished = Unfinished(folder, work)
    candidates = Candidates(blocks, shares, unfinished)
    if candidates.complete:
        return candidates
    placement = placement_of(
        anatomy, home_device(model) if device is None else torch.device(device)
    )
    with evaluating(model), torch.no_grad():
        _Levels(placement, method, reuse, unfinished, candidates, apart).decide(batches)
    return Candidates(blocks, shares, unfinished)


class _Levels(Run):
    """A run at the mean share that leaves its decisions at all shares with the candidates."""

    def __init__(
        self,
        placement: Placement,
        method: UnitPruning | WeightPruning,
        reuse: Reuse | None,
        unfinished: Unfinished,
        candidates: Candidates,
        apart: bool,
    ) -> None:
        super().__init__(placement, method, reuse, unfinished)
        self.candidates, self.apart = candidates, apart and isinstance(method, UnitPruning)
        self._decisions: dict[tuple[int, float], Decision] = {}

    def decided(
        self, part: Block, results: Mapping[str, Any], share: float
    ) -> tuple[Decision, Mapping[str, torch.Tensor]]:
        """On a part of a block, from the evidence behind earlier parts at the mean share."""
        mean = super().decided(part, results, share)
        for other in self.candidates.shares:
            decision = mean[0] if other == share else super().decided(part, results, other)[0]
            self.candidates.keep(part, other, decision)
        return mean

    def surveyed(
        self, scores: Scores, shares: Mapping[int, float], budget: float
    ) -> Mapping[int, Decision]:
        """On each block for itself; with a repair they are kept when that is done."""
        for block in self.blocks:
            for share in self.candidates.shares:
                decision = self._selected(block, scores[block.index], share)
                self._decisions[block.index, share] = decision
                if self.method.effective_repair is None:
                    self.candidates.keep(block, share, decision)
        return {index: self._decisions[index, share] for index, share in shares.items()}

    def _selected(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        if not self.apart:
            return self.method.select(block, scores, share)
        kept: dict[str, torch.Tensor] = {}
        for part in block.parts().values():
            kept |= self.method.select(part, scores, share).kept
        return Decision(kept=kept)

    def readers(self) -> tuple[list[Block], dict[str, torch.Tensor]]:
        """All Linears that read units: some lose none at the mean share, and some at others."""
        assert isinstance(self.method, UnitPruning)
        return _readers(self.method, self.blocks), super().readers()[1]

    def repaired(
        self,
        repair: Repair,
        part: Block,
        keep: Mapping[str, torch.Tensor],
        results: Mapping[str, Any],
    ) -> Decision:
        """At each share, from the evidence behind repairs at the mean share."""
        whole = next(block for block in self.blocks if block.index == part.index)
        for share in self.candidates.shares:
            kept = self._decisions[part.index, share].kept
            decision = super().repaired(repair, *_losing(part, _kept_inputs(whole, kept)), results)
            decision.kept = kept
            self.candidates.keep(part, share, decision)
        return super().repaired(repair, *_losing(part, keep), results)


def _losing(
    part: Block, keep: Mapping[str, torch.Tensor]
) -> tuple[Block, Mapping[str, torch.Tensor]]:
    """Of some Linears those that lose inputs, and what they keep."""
    return part.part(site for site in part.sites if site.name in keep), keep


def _kept_inputs(block: Block, kept: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By the Linears of a block that read removed units, what they keep of their inputs."""
    plan = Plan()
    for kind, index_U in kept.items():
        plan.set_kept(kind, block.index, index_U, block.units(kind))
    return readers_of([block], plan)[1]


def _readers(method: UnitPruning, blocks: Sequence[Block]) -> list[Block]:
    """The blocks with the Linears that read units of the kinds that a method removes."""
    parts = []
    for block in blocks:
        readers = {block.reader(kind).site.name for kind in method.kinds_of(block)}
        if readers:
            parts.append(block.part(site for site in block.sites if site.name in readers))
    return parts
