"""The classes of pruned models, known to transformers' Auto classes and to pickle.

`register` makes the config class of each of a family's types, which costs little. Its model classes
need the stock model's code, which is slow to import: they are made when they are first needed, at
the latest when a config of the type is.

The classes are attributes of this module, by their names (`PrunedLlamaForCausalLM`), so that pickle
finds them.
"""

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

from lightning_prune.anatomy import FAMILIES, PRUNED_PREFIX, Family
from lightning_prune.modeling.modeling_pruned import Layout, make_config, make_models

__all__ = [
    "PrunedClasses",
    "layout_of",
    "pruned_classes",
    "register",
    "register_all",
    "stock_class",
]

_layouts: dict[str, Layout] = {}
"""By stock model type, of everything that is registered."""


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
    stock: Any = MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[base]]
    return stock


def register(family: Family) -> None:
    """Let transformers' Auto classes read pruned models of a family's types.

    A type that is registered again gets new classes.

    Raises:
        ValueError: transformers does not know one of the family's types.
    """
    for base in family.model_types:
        if base not in CONFIG_MAPPING:
            raise ValueError(
                f"transformers knows no model type {base!r}. Make its config and model classes "
                "known first: AutoConfig.register, AutoModel.register and "
                "AutoModelForCausalLM.register."
            )
        _layouts[base] = layout_of(family)
        config: Any = make_config(base, _layouts[base])
        config.__module__ = __name__
        config.__new__ = _new_config
        AutoConfig.register(config.model_type, config)
    pruned_classes.cache_clear()


def register_all() -> None:
    """Register every family of `lightning_prune.anatomy`."""
    for family in FAMILIES:
        register(family)


@cache
def pruned_classes(base: str) -> PrunedClasses:
    """The classes for pruned models of the stock type `base`, such as "llama".

    Raises:
        ValueError: no family of this type is registered.
    """
    if base not in _layouts:
        raise ValueError(
            f"no family with the model type {base!r} is registered; there are "
            f"{', '.join(sorted(_layouts))}"
        )
    config = CONFIG_MAPPING[PRUNED_PREFIX + base]
    classes = PrunedClasses(config, *make_models(base, _layouts[base], config))
    for cls in classes:
        cls.__module__ = __name__
    AutoModel.register(config, classes.model)
    AutoModelForCausalLM.register(config, classes.causal_lm)
    return classes


def _new_config(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """A config, and the models that it can be asked for."""
    pruned_classes(cls.model_type.removeprefix(PRUNED_PREFIX))
    return object.__new__(cls)


def __getattr__(name: str) -> type:
    for base in _layouts if name.startswith("Pruned") else ():
        for cls in pruned_classes(base):
            if cls.__name__ == name:
                return cls
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
