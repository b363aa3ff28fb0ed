"""From kept units to kept features: which rows and columns of which Linear stay.

Axes: U units, F features on one axis of one Linear.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lightning_prune.anatomy import UNIT_ROLES, Anatomy, Block, Site, check_numbers
from lightning_prune.plan import Kept, Plan

__all__ = ["check_units", "kept_features"]


def kept_features(block: Block, plan: Plan) -> Iterator[tuple[Site, int, torch.Tensor]]:
    """Each site's axis of a block that loses features, with a bool mask of what stays on it.

    Rows (axis 0) and columns (axis 1) come in one mask each, whatever kinds of units the plan
    decides on and however many projections are fused in the site.
    """
    masks: dict[tuple[str, int], tuple[Site, torch.Tensor]] = {}
    for kind in plan.kinds:
        kept = plan.blocks(kind).get(block.index)
        if kind not in UNIT_ROLES or kept is None or kept.removed == 0:
            continue
        gone_U = torch.ones(kept.total, dtype=torch.bool).index_fill(0, kept.index_U, False)
        for member in block.members(kind):
            site, axis = member.site, member.axis
            full_F = torch.ones(site.module.weight.shape[axis], dtype=torch.bool)
            _, keep_F = masks.setdefault((site.name, axis), (site, full_F))
            keep_F[member.features(gone_U.nonzero().flatten())] = False
    for (_, axis), (site, keep_F) in masks.items():
        yield site, axis, keep_F


def check_units(anatomy: Anatomy, plan: Plan) -> None:
    """Refuse a plan whose units do not fit the model.

    Raises:
        ValueError: an unknown kind or block, a total that is not the model's, an index out of
            range or out of order, no block left, or weights that cannot be cut.
    """
    for kind in plan.kinds:
        if kind not in (*UNIT_ROLES, "block"):
            raise ValueError(
                f"the plan decides on {kind!r} units; what can be cut: "
                f"{', '.join(UNIT_ROLES)}, block"
            )
        for index, kept in plan.blocks(kind).items():
            if not 0 <= index < len(anatomy.blocks):
                raise ValueError(
                    f"the plan keeps {kind} units of block {index}; the model has blocks 0 to "
                    f"{len(anatomy.blocks) - 1}. Was the plan made for another model?"
                )
            _check_kept(anatomy.blocks[index], kind, kept)
    gone = sum(kept.removed for kept in plan.blocks("block").values())
    if gone >= len(anatomy.blocks):
        raise ValueError(
            f"the plan takes all {len(anatomy.blocks)} blocks out of the model; one must stay"
        )


def _check_kept(block: Block, kind: str, kept: Kept) -> None:
    total, index_U = block.units(kind), kept.index_U
    if kept.total != total:
        raise ValueError(
            f"the plan is about {kept.total} {kind} units in {block.name}, which has {total}. Was "
            "the plan made for another model, or applied already?"
        )
    if index_U.numel() == 0:  # the whole attention, MLP or block goes
        return
    if index_U[0] < 0 or index_U[-1] >= total or (index_U.diff() <= 0).any():
        raise ValueError(
            f"the plan's {kind} indices for {block.name} must be sorted, without repeats and "
            f"between 0 and {total - 1}; got {index_U.tolist()}"
        )
    for site in block.sites:
        check_numbers(site.name, site.module)
