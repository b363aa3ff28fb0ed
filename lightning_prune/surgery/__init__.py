"""The only room that changes a model: zero weights, zero units, or cut units off."""

from __future__ import annotations

from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan
from lightning_prune.surgery.mask import apply_masks, check_masks, mask_block, mask_units
from lightning_prune.surgery.shrink import check_cuts, shrink

__all__ = ["apply", "apply_masks", "mask_block", "mask_units", "shrink"]


def apply(anatomy: Anatomy, plan: Plan) -> None:
    """Do all that a plan says, in place: zero the weights that go, then cut the units that go.

    Raises:
        ValueError: the plan does not fit the model; nothing was changed then.
    """
    check_masks(anatomy.model, plan)
    check_cuts(anatomy, plan)
    apply_masks(anatomy.model, plan)
    shrink(anatomy, plan)
