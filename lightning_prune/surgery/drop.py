"""Take whole blocks out of a model, and keep its config in step."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan

__all__ = ["drop_blocks", "dropped"]


def dropped(plan: Plan) -> set[int]:
    """Indices of the blocks that the plan takes out."""
    return {index for index, kept in plan.blocks("block").items() if kept.removed}


def drop_blocks(anatomy: Anatomy, plan: Plan) -> None:
    """Take out the blocks that the plan removes, in place.

    The others are numbered anew, in their modules too, so that the KV cache has no gaps. Whatever
    the config lists once a block (the kinds of attention, the counts of uneven blocks) loses what
    belonged to them.
    """
    gone = dropped(plan)
    if not gone:
        return
    model: Any = anatomy.model
    total = len(anatomy.blocks)
    kept = [block for block in anatomy.blocks if block.index not in gone]
    parent, _, name = anatomy.family.blocks.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.ModuleList([block.module for block in kept]))
    for index, block in enumerate(kept):
        for module in block.module.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", index)  # noqa: B010
    _shorten(model.config, total, [block.index for block in kept])
    anatomy.blocks = Anatomy(model).blocks


def _shorten(config: Any, total: int, kept: list[int]) -> None:
    """Keep what the config says of the blocks that stay, wherever it lists all of them."""
    for key, value in list(vars(config).items()):
        if isinstance(value, (list, tuple)) and len(value) == total and not key.startswith("_"):
            vars(config)[key] = type(value)(value[index] for index in kept)
    config.num_hidden_layers = len(kept)
