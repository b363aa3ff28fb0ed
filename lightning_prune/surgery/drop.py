"""Take whole blocks out of a model, and keep its config in step."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan

__all__ = ["drop_blocks"]


def drop_blocks(anatomy: Anatomy, plan: Plan) -> None:
    """Take out the blocks that the plan removes, in place.

    The others are numbered anew, in their modules too, so that the KV cache has no gaps, and the
    config follows: each block keeps its own kind of attention.
    """
    gone = plan.dropped
    if not gone:
        return
    model: Any = anatomy.model
    kept = [block for block in anatomy.blocks if block.index not in gone]
    parent, _, name = anatomy.family.blocks.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.ModuleList([block.module for block in kept]))
    for index, block in enumerate(kept):
        for module in block.module.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", index)  # noqa: B010
    _shorten(model.config, [block.index for block in kept])
    anatomy.blocks = Anatomy(model).blocks


def _shorten(config: Any, kept: list[int]) -> None:
    """Keep what the config says of the blocks that stay."""
    kinds = getattr(config, "layer_types", None)
    first_sliding = getattr(config, "max_window_layers", None)
    config.num_hidden_layers = len(kept)
    if hasattr(config, "stage_names"):  # of a model that may also serve as another one's backbone
        config.stage_names = config.stage_names[: len(kept) + 1]
        config.set_output_features_output_indices(None, None)
    if kinds is not None:
        config.layer_types = [kinds[index] for index in kept]
    if first_sliding is not None:
        config.max_window_layers = sum(index < first_sliding for index in kept)
