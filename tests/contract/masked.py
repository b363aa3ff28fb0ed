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
        kept = {(site.name, axis): keep_F for site, axis, keep_F in kept_features(block, plan)}
        outside = {f"{block.name}.{name}": p for name, p in block.module.named_parameters()}
        for site in block.sites:
            shape, bias_name = site.module.weight.shape, f"{site.name}.bias"
            rows, columns = (
                kept.get((site.name, axis), torch.ones(size, dtype=torch.bool)).nonzero().flatten()
                for axis, size in enumerate(shape)
            )
            if site.weight_name in plan.corrected:
                full_OI = torch.zeros(shape)
                full_OI[rows[:, None], columns] = own[site.weight_name]
                site.module.weight.data = full_OI
            if bias_name in own and ((site.name, 1) in kept or bias_name in plan.corrected):
                full_O = torch.zeros(shape[0])
                full_O[rows] = own[bias_name]
                site.module.bias = nn.Parameter(full_O)
            for name in (site.weight_name, bias_name):
                outside.pop(name, None)
        for name, parameter in outside.items():
            if name in plan.corrected:
                parameter.data = own[name].clone()
    return dense
