"""The classes of pruned models, known to transformers' Auto classes and to pickle.

`register` makes the config class of each of a family's types, which costs little. Its model classes
need the stock model's code, which is slow to import: they are made when they are first needed, at
the latest when a config of the type is.

The classes are attributes of this module, by their names (`PrunedLlamaForCausalLM`), so that pickle
finds them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import transformers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

from lightning_prune.anatomy import FAMILIES, PRUNED_PREFIX, Family, add_family
from lightning_prune.modeling.modeling_pruned import Layout, make_config, make_models

__all__ = [
    "PrunedClasses",
    "auto_class",
    "layout_of",
    "pruned_classes",
    "register",
    "register_all",
    "register_family",
    "registered_layout",
    "stock_class",
]


class PrunedClasses(NamedTuple):
    """The classes of pruned models of one type; `whole` is the model with its head."""

    config: type
    base: type
    whole: type


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
        auto_class=family.task.auto_class,
    )


def auto_class(model_type: str) -> Any:
    """Transformers' class that loads models of a type, pruned or not: of causal LMs, if unknown."""
    layout = _layouts.get(model_type.removeprefix(PRUNED_PREFIX))
    return getattr(transformers, layout.auto_class if layout else Layout.auto_class)


def stock_class(base: str) -> type:
    """The stock class of a model type, with its head."""
    stock: Any = auto_class(base)._model_mapping[CONFIG_MAPPING[base]]
    return stock[0] if isinstance(stock, tuple) else stock


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
                f"known first: AutoConfig.register, AutoModel.register and {layout.auto_class}."
                "register."
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


def register_family(family: Family) -> None:
    """Make a table of your own known: to pruning and, so that cut models load, to transformers.

    Models whose type transformers does not know can be masked; to cut them, make their classes
    known to its Auto classes first.

    Raises:
        ValueError: one of its model types is known already, or a role or path does not make sense.
    """
    add_family(family)
    if all(name in CONFIG_MAPPING for name in family.model_types):
        register(family)


def registered_layout(base: str) -> Layout:
    """Where the counted features are in models of the stock type `base`.

    Raises:
        ValueError: no family of this type is registered.
    """
    if base not in _layouts:
        raise ValueError(
            f"no family with the model type {base!r} is registered; there are "
            f"{', '.join(sorted(_layouts))}"
        )
    return _layouts[base]


def pruned_classes(base: str) -> PrunedClasses:
    """The classes for pruned models of the stock type `base`, such as "llama".

    Raises:
        ValueError: no family of this type is registered.
    """
    layout = registered_layout(base)
    if base not in _classes:
        config: Any = CONFIG_MAPPING[PRUNED_PREFIX + base]
        model, whole = make_models(base, layout, config)
        model.__module__ = whole.__module__ = __name__
        AutoModel.register(config, model)
        auto_class(base).register(config, whole)
        _classes[base] = PrunedClasses(config, model, whole)
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
