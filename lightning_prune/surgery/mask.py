"""Zeros: in single weights, and in whole units without changing a shape.

Axes: O output features, I input features, F features on one axis.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.plan import Plan
from lightning_prune.surgery.features import check_units, kept_features

__all__ = ["apply_masks", "check_masks", "fits", "mask_block", "mask_units", "write_corrected"]


@torch.no_grad()
def apply_masks(model: nn.Module | Anatomy, plan: Plan) -> None:
    """Zero the weights that the plan's masks do not keep, in place.

    Args:
        model: the model, or its anatomy.
        plan: its mask names are names of the model's parameters.

    Raises:
        ValueError: a name or a shape does not fit; nothing was changed then.
    """
    model = model.model if isinstance(model, Anatomy) else model
    check_masks(model, plan)
    weights = dict(model.named_parameters())
    for name in plan.mask_names:
        weight_OI = weights[name]
        weight_OI.masked_fill_(~plan.mask(name).to(weight_OI.device), 0)


@torch.no_grad()
def write_corrected(model: nn.Module, plan: Plan) -> None:
    """Give weights the values that the method corrected them to, in place.

    Raises:
        ValueError: the plan was saved without them; nothing was changed then.
    """
    weights = dict(model.named_parameters())
    for name, weight_OI in plan.corrected_weights():
        weights[name].copy_(weight_OI)


def fits(model: nn.Module, plan: Plan) -> bool:
    """Whether the plan's masks have the names and shapes of the model's weights."""
    weights = dict(model.named_parameters())
    return all(
        name in weights and weights[name].shape == plan.mask_shape(name) for name in plan.mask_names
    )


def check_masks(model: nn.Module, plan: Plan) -> None:
    """Refuse a plan whose masks do not fit the model's weights.

    Raises:
        ValueError: the first name that is missing, or whose shape differs.
    """
    weights = dict(model.named_parameters())
    for name in plan.mask_names:
        if name not in weights:
            raise ValueError(
                f"the plan has a mask for {name!r}, and the model has no such weight. Was the plan "
                "made for another model?"
            )
        planned, actual = plan.mask_shape(name), weights[name].shape
        if planned != actual:
            raise ValueError(
                f"the plan's mask for {name!r} has shape {tuple(planned)}, the model's weight "
                f"{tuple(actual)}. Was the plan made for another model, or for this one before it "
                "was cut?"
            )


@torch.no_grad()
def mask_units(anatomy: Anatomy, plan: Plan) -> None:
    """Zero the units that the plan removes (rows, their biases, columns) and keep every shape.

    Of a block that goes, what it adds to the residual stream becomes zero. The model computes what
    the shrunken one computes.

    Raises:
        ValueError: the plan does not fit the model; nothing was changed then.
    """
    check_units(anatomy, plan)
    for block in anatomy.blocks:
        _mask_units(block, plan)
        for site in block.sites if block.index in plan.dropped else ():
            for parameter in site.module.parameters() if site.table.columns else ():
                parameter.zero_()


@torch.no_grad()
def mask_block(
    block: Block,
    masks: Mapping[str, torch.Tensor],
    kept: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Correct what stays in one block and zero what does not, while a sweep is on its way.

    Args:
        block: the block, on whatever device.
        masks: by weight name, True = kept (O, I).
        kept: by kind of unit, the indices that stay.
        weights: by name, the corrected weight (O, I), or bias (O,).
    """
    for site in block.sites:
        for name, parameter in site.module.named_parameters(recurse=False):
            if weights and f"{site.name}.{name}" in weights:
                parameter.copy_(weights[f"{site.name}.{name}"])
        if site.weight_name in masks:
            gone_OI = ~masks[site.weight_name].to(site.module.weight.device)
            site.module.weight.masked_fill_(gone_OI, 0)
    block_plan = Plan()
    for kind, index_U in kept.items():
        block_plan.set_kept(kind, block.index, index_U, block.units(kind))
    _mask_units(block, block_plan)


def _mask_units(block: Block, plan: Plan) -> None:
    for site, axis, keep_F in kept_features(block, plan):
        gone_F = (~keep_F).nonzero().flatten().to(site.module.weight.device)
        site.module.weight.index_fill_(axis, gone_F, 0)
        if axis == 0 and site.module.bias is not None:
            site.module.bias.index_fill_(0, gone_F, 0)
