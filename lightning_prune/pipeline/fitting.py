"""Training what pruning left of the blocks, span by span, to do what the dense blocks did.

Axes: O output features, I input features, F features on one axis.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch
from torch import nn

from lightning_prune import distributed, surgery
from lightning_prune.anatomy import Block
from lightning_prune.methods.base import Decision, Method, check_finite
from lightning_prune.pipeline.unfinished import Stage
from lightning_prune.plan import Plan
from lightning_prune.progress import BlockProgress
from lightning_prune.repair import BlockFit
from lightning_prune.surgery.features import kept_features
from lightning_prune.sweep import HiddenStates, Placement, fitting_sweep, stored

__all__ = ["Fitting"]


class Fitting:
    """The blocks as they are before they are pruned, and their training when they have been.

    Where the method has no `block_fit`, there is nothing to it.

    Args:
        method: says how they are trained, and where their copies are kept; those of mapped weights
            are on the disk.
        blocks: that will be pruned; they are copied now.
        placement: where the model's weights are.
    """

    def __init__(self, method: Method, blocks: Sequence[Block], placement: Placement) -> None:
        self.fit, self.placement = method.block_fit, placement
        inside = [b for b in blocks if b.index < len(placement.anatomy.blocks)]  # not the head
        self.blocks = inside if self.fit is not None else []
        kept = "disk" if placement.saves_memory else method.offload
        self._dense: dict[int, nn.Module] = {}
        for block in self.blocks:
            module = block.copied(placement.anatomy.model.config).module
            for parameter in module.parameters():
                parameter.data = stored(parameter.data, kept)
            self._dense[block.index] = module

    def run(self, states: HiddenStates, plan: Plan, stage: Stage) -> None:
        """Train every span, and write into the plan what came of it."""
        if self.fit is None:
            return
        for block in self.blocks:
            with self.placement.edited(block):
                _zero_removed(block, plan)
        notes = plan.provenance.setdefault("block_fit", [])
        every = self.placement.anatomy.blocks
        spans = self.fit.spans([every[block.index] for block in self.blocks])
        known = {b.index for span in spans if _all(span, stage.finished) for b in span}
        with self._steps(states, self.fit, spans, plan, known) as steps:
            for span, fitted in steps:
                if fitted is None:
                    for block in span:
                        _write(block, stage.decision(block)[0].weights)
                else:
                    notes.append({"blocks": [b.index for b in span], **fitted._asdict()})
                for block in span:
                    weights = {f"{block.name}.{n}": p for n, p in block.module.named_parameters()}
                    check_finite(block, weights, "trained weights")
                    plan.set_corrected(weights)
                    if fitted is not None:
                        stage.keep_decision(block, Decision(weights=weights), {})

    @contextmanager
    def _steps(
        self,
        states: HiddenStates,
        fit: BlockFit,
        spans: Sequence[Sequence[Block]],
        plan: Plan,
        known: Collection[int],
    ) -> Iterator[Iterator[Any]]:
        """Context with an iterator over the spans; shows how far it is."""

        def masks(block: Block) -> Mapping[str, torch.Tensor]:
            return _kept_masks(block, plan)

        def dense(block: Block) -> nn.Module:
            return self._dense[block.index]

        total = fit.steps * sum(not _all(span, known) for span in spans)
        first = distributed.rank() == 0
        with BlockProgress(total, "BlockFit", enabled=first, unit="steps") as progress:

            def stepped(span: Sequence[Block]) -> None:
                progress.advance(span[-1].name if len(span) < len(self.blocks) else "all blocks")

            with closing(fitting_sweep(states, fit, spans, dense, masks, known, stepped)) as steps:
                yield steps


def _all(span: Sequence[Block], finished: Collection[int]) -> bool:
    return all(block.index in finished for block in span)


@torch.no_grad()
def _write(block: Block, weights: Mapping[str, torch.Tensor]) -> None:
    for name, parameter in block.module.named_parameters():
        parameter.copy_(weights[f"{block.name}.{name}"])


def _zero_removed(block: Block, plan: Plan) -> None:
    """Zero the units that will be cut off, so that the block computes what will be left of it."""
    kept = {
        kind: plan.kept(kind, block.index)
        for kind in plan.kinds
        if kind != "block" and block.index in plan.blocks(kind)
    }
    surgery.mask_block(block, {}, kept)


def _kept_masks(block: Block, plan: Plan) -> dict[str, torch.Tensor]:
    """What stays of each weight of a block that has lost some, by the weight's name."""
    planned = set(plan.mask_names)
    masks = {
        site.weight_name: plan.mask(site.weight_name)
        for site in block.sites
        if site.weight_name in planned
    }
    for site, axis, keep_F in kept_features(block, plan):
        keep_OI = keep_F[:, None] if axis == 0 else keep_F[None]
        name = site.weight_name
        masks[name] = masks[name] & keep_OI if name in masks else keep_OI
    return masks
