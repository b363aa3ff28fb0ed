"""The classes of pruned models, known to transformers' Auto classes and to pickle.

`register` makes the config class of each of a family's types, which costs little. Its model classes
need the stock model's code, which is slow to import: they are made when they are first needed, at
the latest when a config of the type is.

The classes are attributes of this module, by their names (`PrunedLlamaForCausalLM`), so that pickle
finds them.
"""

from __future__ import annotations

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


class PrunedClasses(NamedTuple):
    """The classes of pruned models of one type."""

    config: type
    model: type
    causal_lm: type


_layouts: dict[str, Layout] = {}
_classes: dict[str, PrunedClasses] = {}
"""By stock model type, what is registered, and of it what was needed so far."""


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

    A type that was registered with another table gets new classes; models of the old ones stay as
    they are, but pickle does not know them any more.

    Raises:
        ValueError: transformers does not know one of the family's types.
    """
    layout = layout_of(family)
    for base in family.model_types:
        if base not in CONFIG_MAPPING:
            raise ValueError(
                f"transformers knows no model type {base!r}. Make its config and model classes "
                "known first: AutoConfig.register, AutoModel.register and "
                "AutoModelForCausalLM.register."
            )
        if _layouts.get(base) != layout:
            config: Any = make_config(base, layout)
            config.__module__, config.__new__ = __name__, _new_config
            AutoConfig.register(config.model_type, config)
            _layouts[base] = layout
            _classes.pop(base, None)


def register_all() -> None:
    """Register every family of `lightning_prune.anatomy`."""
    for family in FAMILIES:
        register(family)


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
    if base not in _classes:
        config: Any = CONFIG_MAPPING[PRUNED_PREFIX + base]
        model, causal_lm = make_models(base, _layouts[base], config)
        model.__module__ = causal_lm.__module__ = __name__
        AutoModel.register(config, model)
        AutoModelForCausalLM.register(config, causal_lm)
        _classes[base] = PrunedClasses(config, model, causal_lm)
    return _classes[base]


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
