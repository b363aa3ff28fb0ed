"""Cut MLP neurons and GQA groups off a model, and keep its config and classes in step.

Axes: F features on one axis of one Linear.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import CONFIG_MAPPING

from lightning_prune.anatomy import PRUNED_PREFIX, Anatomy, Block
from lightning_prune.modeling.modeling_pruned import set_counts
from lightning_prune.modeling.registry import layout_of, pruned_classes, stock_class
from lightning_prune.plan import Plan
from lightning_prune.surgery.biases import lacking_biases
from lightning_prune.surgery.drop import drop_blocks
from lightning_prune.surgery.features import check_units, kept_features

__all__ = ["check_cuts", "shrink"]

Edited = Callable[[Block], AbstractContextManager[Any]]


def shrink(anatomy: Anatomy, plan: Plan, edited: Edited = nullcontext) -> None:
    """Cut off the units, and take out the blocks, that the plan removes, in place.

    A block may lose its whole attention or its whole MLP.

    The parameters of every Linear concerned are replaced by smaller ones (same dtype, device and
    `requires_grad`), so an optimizer must be built afterwards. Blocks that end alike in counts that
    the stock class accepts leave a stock model with new config values. Otherwise the model and its
    config become the pruned classes of their type, with `config.per_layer_config` (of blocks in
    stages `config.pruned_counts`), and the global config values stay as they were.

    Args:
        anatomy: of the model.
        plan: which units and blocks stay.
        edited: context in which a block is cut.

    Raises:
        ValueError: the plan does not fit the model, would leave no block, or would need a pruned
            class for a model of a class of its own; nothing was changed then.
    """
    check_cuts(anatomy, plan)
    for block in anatomy.blocks:
        if features := list(kept_features(block, plan)):
            with edited(block):
                for site, axis, keep_F in features:
                    _cut(site.module, axis, keep_F)
    drop_blocks(anatomy, plan)
    if _cuts(plan):
        _bring_in_step(anatomy)


def check_cuts(anatomy: Anatomy, plan: Plan) -> None:
    """Refuse a plan that `shrink` could not carry out.

    Raises:
        ValueError: as `shrink`.
    """
    check_units(anatomy, plan)
    model: Any = anatomy.model
    if not _cuts(plan) or model.config.model_type.startswith(PRUNED_PREFIX):
        return
    stock = stock_class(model.config.model_type)
    fits = _fits_stock(anatomy, _planned_counts(anatomy, plan))
    if type(model) is not stock and (not fits or lacking_biases(anatomy, plan)):
        raise ValueError(
            f"the plan makes a model that needs its own class, which replaces {stock.__name__}; "
            f"this model is a {type(model).__name__}. Prune the {stock.__name__} itself, or the "
            "same number of units in every block."
        )


def _cuts(plan: Plan) -> bool:
    """Whether the plan takes any unit or block out."""
    return any(kept.removed for kind in plan.kinds for kept in plan.blocks(kind).values())


def _cut(linear: nn.Linear, axis: int, keep_F: torch.Tensor) -> None:
    index_F = keep_F.nonzero().flatten().to(linear.weight.device)
    linear.weight = _part(linear.weight, axis, index_F)
    if axis == 1:
        linear.in_features = index_F.numel()
        return
    linear.out_features = index_F.numel()
    if linear.bias is not None:
        linear.bias = _part(linear.bias, 0, index_F)


def _part(parameter: torch.Tensor, axis: int, index_F: torch.Tensor) -> nn.Parameter:
    part = parameter.detach().index_select(axis, index_F)
    return nn.Parameter(part, requires_grad=parameter.requires_grad and part.numel() > 0)


# --- counts, config and classes ---

# A config read from a file holds its `model_type` itself, beside its class.
OWN_TYPE = "model_type"
UNEVEN_KEYS = ("per_layer_config", "allow_global_per_layer_attribute_access", "auto_map")


def _bring_in_step(anatomy: Anatomy) -> None:
    """Set the modules' own counts, the config and the classes to what the blocks now are."""
    config: Any = anatomy.model.config
    layout = layout_of(anatomy.family)
    counts = [_counts(block) for block in anatomy.blocks]
    for block, block_counts in zip(anatomy.blocks, counts, strict=True):
        set_counts(config, block.module, block_counts, layout)
    if _fits_stock(anatomy, counts):
        _make_stock(anatomy, counts)
    else:
        _make_uneven(anatomy, counts)


def _make_stock(anatomy: Anatomy, counts: list[dict[str, int]]) -> None:
    model: Any = anatomy.model
    config = model.config
    if config.model_type.startswith(PRUNED_PREFIX):
        model.__class__ = stock_class(_base(config))
        config.per_layer_config = None
        config.__class__ = model.config_class
        for key in (*UNEVEN_KEYS, OWN_TYPE):
            config.__dict__.pop(key, None)
    for key, value in _stock_values(anatomy, counts).items():
        setattr(config, key, value)
    for block in anatomy.blocks if anatomy.family.attention_reads_config else ():
        block.module.get_submodule(block.family.attention).config = config


def _make_uneven(anatomy: Anatomy, counts: list[dict[str, int]]) -> None:
    model: Any = anatomy.model
    config = model.config
    if not config.model_type.startswith(PRUNED_PREFIX):
        classes = pruned_classes(config.model_type)
        model.__class__, config.__class__ = classes.whole, classes.config
        config.__dict__.pop(OWN_TYPE, None)
        if anatomy.family.attention:
            config.head_dim = anatomy.blocks[0].head_dim
        config.allow_global_per_layer_attribute_access = True
    if anatomy.family.staged:  # transformers' own key counts one block a stage
        config.pruned_counts = counts
        return
    keys = layout_of(anatomy.family).keys
    config.per_layer_config = {
        index: {key: block_counts[role] for role, key in keys.items()}
        for index, block_counts in enumerate(counts)
    }


def _counts(block: Block) -> dict[str, int]:
    return {"heads": block.heads, "kv_heads": block.kv_heads, "width": block.width}


def _planned_counts(anatomy: Anatomy, plan: Plan) -> list[dict[str, int]]:
    neurons, groups = plan.blocks("neuron"), plan.blocks("group")
    planned, gone = [], plan.dropped
    for block in anatomy.blocks:
        if block.index in gone:
            continue
        counts = _counts(block)
        if block.index in neurons:
            counts["width"] = neurons[block.index].index_U.numel()
        if block.index in groups:
            heads_each = counts["heads"] // max(counts["kv_heads"], 1)
            counts["kv_heads"] = groups[block.index].index_U.numel()
            counts["heads"] = heads_each * counts["kv_heads"]
        planned.append(counts)
    return planned


def _fits_stock(anatomy: Anatomy, counts: list[dict[str, int]]) -> bool:
    """Whether the stock class can build a model whose blocks have these counts."""
    config: Any = anatomy.model.config
    if any(block_counts != counts[0] for block_counts in counts) or getattr(
        config, "pruned_biases", None
    ):
        return False
    if not anatomy.family.width_in_config or counts[0]["width"] == 0:
        return False
    if not anatomy.family.attention:
        return True
    if 0 in counts[0].values():
        return False
    attention_width = counts[0]["heads"] * anatomy.blocks[0].head_dim
    if not anatomy.family.stores_head_dim and attention_width != config.hidden_size:
        return False
    values = {key: value for key, value in config.to_dict().items() if key not in UNEVEN_KEYS}
    try:
        CONFIG_MAPPING[_base(config)](**(values | _stock_values(anatomy, counts)))
    except (ValueError, StrictDataclassError):  # some want heads that divide the hidden size
        return False
    return True


def _stock_values(anatomy: Anatomy, counts: list[dict[str, int]]) -> dict[str, int]:
    """The global config values of a model whose blocks all have the counts of the first."""
    keys = layout_of(anatomy.family).keys
    if not anatomy.family.attention:
        return {keys["width"]: counts[0]["width"]}
    values = {key: counts[0][role] for role, key in keys.items()}
    if anatomy.family.stores_head_dim:
        values["head_dim"] = anatomy.blocks[0].head_dim
    return values


def _base(config: Any) -> str:
    return config.model_type.removeprefix(PRUNED_PREFIX)
