"""The classes of pruned models, made once a model type and made known to transformers."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
)

from lightning_prune.anatomy import FAMILIES, Family, family_of
from lightning_prune.export.pruned_model import Layout, make_classes

__all__ = ["PrunedClasses", "layout_of", "pruned_classes", "register_all", "stock_class"]


class PrunedClasses(NamedTuple):
    """The classes of pruned models of one type."""

    config: type
    model: type
    causal_lm: type


def layout_of(family: Family) -> Layout:
    """What a family's table says about the places of counted features, as plain data."""
    keys = {"heads": family.heads_key, "kv_heads": family.kv_heads_key, "width": family.width_key}
    return Layout(
        blocks=family.blocks,
        attention=family.attention,
        sites={site.path: (site.rows, site.columns) for site in family.sites},
        keys={role: key for role, key in keys.items() if key is not None},
        attributes=dict(family.attributes),
        attention_reads_config=family.attention_reads_config,
    )


def stock_class(base: str) -> type:
    """The stock causal LM class of a model type."""
    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[base]]
    return found


@cache
def pruned_classes(base: str) -> PrunedClasses:
    """The classes for pruned models of the type `base` ("llama"), known to the Auto classes.

    Raises:
        ValueError: no family's table describes this type.
    """
    classes = PrunedClasses(*make_classes(base, layout_of(family_of(base))))
    AutoConfig.register(classes.config.model_type, classes.config)  # type: ignore[attr-defined]
    AutoModel.register(classes.config, classes.model)
    AutoModelForCausalLM.register(classes.config, classes.causal_lm)
    return classes


def register_all() -> None:
    """Make the pruned classes of every known model type known to the Auto classes."""
    for family in FAMILIES:
        for base in family.model_types:
            pruned_classes(base)
