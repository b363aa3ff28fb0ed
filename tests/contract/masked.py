"""What a cut model is compared with: the dense one with zeros in place of what was cut."""

from __future__ import annotations

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan
from lightning_prune.surgery import mask_units
from lightning_prune.surgery.features import kept_features


def masked(dense: nn.Module, pruned: nn.Module, plan: Plan) -> nn.Module:
    """The dense model, changed in place: masked by the plan, with the weights of the cut one."""
    anatomy = Anatomy(dense)
    mask_units(anatomy, plan)
    own = pruned.state_dict()
    for block in anatomy.blocks:
        kept = {site.name: keep_I for site, axis, keep_I in kept_features(block, plan) if axis == 1}
        for site in block.sites:
            if site.weight_name in plan.corrected:
                full_OI = torch.zeros_like(site.module.weight)
                full_OI[:, kept[site.name]] = own[site.weight_name]
                site.module.weight.data = full_OI
            if site.name in kept and f"{site.name}.bias" in own:
                site.module.bias = nn.Parameter(own[f"{site.name}.bias"].clone())
    return dense
