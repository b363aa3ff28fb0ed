"""Biases where a model has none, so that a repair can put something there.

Axes: O output features.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan

__all__ = ["add_biases", "give_bias", "lacking_biases"]


def lacking_biases(anatomy: Anatomy, plan: Plan) -> list[str]:
    """Paths in the block of Linears that get a bias by the plan and have none yet."""
    paths = {
        site.table.path
        for block in anatomy.blocks
        for site in block.sites
        if site.module.bias is None and f"{site.name}.bias" in plan.corrected
    }
    return sorted(paths)


def add_biases(anatomy: Anatomy, paths: Iterable[str]) -> None:
    """Give the Linears at these paths a bias of zeros, in every block, and note it in the config.

    A model with such biases needs a class of its own to be loaded.

    Args:
        anatomy: of the model.
        paths: as in the family's table, such as "mlp.down_proj".
    """
    paths, config = set(paths), anatomy.model.config
    added: set[str] = set()
    for block in anatomy.blocks:
        for site in block.sites:
            linear = site.module
            if site.table.path in paths and linear.bias is None:
                give_bias(linear)
                added.add(site.table.path)
    if added:
        before: Any = getattr(config, "pruned_biases", None) or []
        config.pruned_biases = sorted({*before, *added})  # type: ignore[union-attr]


def give_bias(linear: nn.Linear) -> None:
    """Give a Linear without a bias one of zeros."""
    zeros_O = linear.weight.detach().new_zeros(linear.out_features)
    linear.bias = nn.Parameter(zeros_O, linear.weight.requires_grad)
