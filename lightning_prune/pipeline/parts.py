"""Which sites of a block are decided on, or repaired, together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from lightning_prune.anatomy import Block
from lightning_prune.plan import Plan
from lightning_prune.surgery.features import kept_features

__all__ = ["by_share", "readers_of"]


def readers_of(blocks: Sequence[Block], plan: Plan) -> tuple[list[Block], dict[str, torch.Tensor]]:
    """The blocks that lose units, each with the Linears that read them; and what these keep."""
    parts: list[Block] = []
    keep: dict[str, torch.Tensor] = {}
    for block in blocks:
        kept = {site.name: keep_I for site, axis, keep_I in kept_features(block, plan) if axis == 1}
        if kept:
            parts.append(block.part(site for site in block.sites if site.name in kept))
            keep |= kept
    return parts, keep


def by_share(block: Block, shares: Mapping[str, float]) -> Iterator[tuple[float, Block]]:
    """A block in parts whose sites have the same share; most often there is one."""
    for share in dict.fromkeys(shares[site.name] for site in block.sites):
        yield share, block.part(site for site in block.sites if shares[site.name] == share)
