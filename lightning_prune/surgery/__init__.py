"""The only room that changes a model: zero weights, zero units, or cut units off."""

from __future__ import annotations

from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan
from lightning_prune.surgery.mask import (
    apply_masks,
    check_masks,
    mask_block,
    mask_units,
    write_corrected,
)
from lightning_prune.surgery.shrink import check_cuts, shrink

__all__ = ["apply", "apply_masks", "mask_block", "mask_units", "shrink"]


def apply(anatomy: Anatomy, plan: Plan) -> None:
    """Do all that a plan says, in place: cut units that go, correct what stays, zero what goes.

    Masks and corrected weights of a plan that also cuts are of the shapes after the cut.

    Raises:
        ValueError: the plan does not fit the model; nothing was changed then, unless the plan both
            cuts and masks.
    """
    check_cuts(anatomy, plan)
    if not plan.kinds:
        check_masks(anatomy.model, plan)
    shrink(anatomy, plan)
    write_corrected(anatomy.model, plan)
    apply_masks(anatomy.model, plan)
