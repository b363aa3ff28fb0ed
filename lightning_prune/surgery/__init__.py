"""The only room that changes a model: zero weights, zero units, or cut units off."""

from __future__ import annotations

from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan
from lightning_prune.surgery.biases import add_biases, give_bias, lacking_biases
from lightning_prune.surgery.mask import (
    apply_masks,
    check_masks,
    fits,
    mask_block,
    mask_units,
    write_corrected,
)
from lightning_prune.surgery.reorder import InnerFeatures, inner_features
from lightning_prune.surgery.shrink import check_cuts, shrink

__all__ = [
    "InnerFeatures",
    "add_biases",
    "apply",
    "apply_masks",
    "give_bias",
    "inner_features",
    "lacking_biases",
    "mask_block",
    "mask_units",
    "shrink",
]


def apply(anatomy: Anatomy, plan: Plan) -> None:
    """Do all that a plan says, in place: cut units that go, correct what stays, zero what goes.

    Masks are of the shapes before the cut, or else after it, as where one method cut and another
    masked what was left; where blocks are taken out, they are named as after that. So are
    corrected weights.

    Raises:
        ValueError: the plan does not fit the model; nothing was changed then, unless the masks fit
            neither before nor after a cut.
    """
    check_cuts(anatomy, plan)
    cut_first = bool(plan.dropped) or (bool(plan.kinds) and not fits(anatomy.model, plan))
    if not cut_first:
        check_masks(anatomy.model, plan)
    plan.check_weights_file()
    if not cut_first:
        apply_masks(anatomy.model, plan)
    add_biases(anatomy, lacking_biases(anatomy, plan))
    shrink(anatomy, plan)
    if cut_first:
        apply_masks(anatomy.model, plan)
    write_corrected(anatomy.model, plan)
