"""Model classes whose blocks differ in width: the stock classes, with every Linear at its own size.

This file needs nothing but torch and transformers (4.57 or newer). It is part of lightning_prune,
and it also travels, with the classes of one family made at its end, in the folders of checkpoints
whose blocks differ, so that they load anywhere with `trust_remote_code=True`.

The counts of each block (query heads, key/value heads, MLP width) are in `config.per_layer_config`,
or, of a model whose blocks stand in stages, in `config.pruned_counts`; the global keys keep values
that the stock class accepts. `config.pruned_biases` names the Linears
that have a bias which the stock class does not give them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import transformers
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING

__all__ = ["BlockConfig", "Layout", "make_config", "make_models", "resize", "set_counts"]


@dataclass(frozen=True)
class Layout:
    """Where the counted features are in a family of models.

    Attributes:
        blocks: path of the list of blocks in the model, whose first part is the base model; with
            stages of blocks that of all lists, with * for the stage.
        attention: path of the attention module in a block; "": no heads are counted.
        sites: path of each Linear in a block → roles of its rows, role of its columns. "query",
            "key", "value" and "neuron" have counted features; "" stands for the residual stream.
        keys: the config keys that count "heads", "kv_heads" (absent: as many as heads), "width".
        attributes: module attributes in a block that hold a count, as path → key of `keys`.
        attention_reads_config: the attention's forward reads head counts from its config.
        auto_class: name of transformers' class that loads such a model.
    """

    blocks: str
    attention: str
    sites: dict[str, tuple[tuple[str, ...], str]]
    keys: dict[str, str]
    attributes: dict[str, str]
    attention_reads_config: bool = False
    auto_class: str = "AutoModelForCausalLM"


class BlockConfig:
    """The model's config as one block sees it: its own counts, everything else as the model has it.

    A view and no copy: a change of the model's config, say of the attention implementation, reaches
    every block.
    """

    def __init__(self, config: Any, counts: dict[str, int]) -> None:
        """A view of `config` in which the keys of `counts` have the block's own values."""
        self.__dict__.update(counts, shared=config)

    def __getattr__(self, key: str) -> Any:
        """What the block has no value of its own for."""
        if key.startswith("__") or key == "shared":  # asked by copy and pickle before there is one
            raise AttributeError(key)
        return getattr(self.shared, key)


def set_counts(config: Any, block: nn.Module, counts: dict[str, int], layout: Layout) -> None:
    """Set the counts that the modules of a block keep for themselves."""
    for path, role in layout.attributes.items():
        parent, _, name = path.rpartition(".")
        setattr(block.get_submodule(parent), name, counts[role])
    attention: Any = block.get_submodule(layout.attention)
    if not layout.attention:
        return
    if counts["heads"] == 0 and not isinstance(attention, Silent):
        attention.__class__ = _silent(type(attention), _output(layout))  # type: ignore[arg-type]
    if layout.attention_reads_config:
        values = {key: counts[role] for role, key in layout.keys.items()}
        attention.config = BlockConfig(config, values)


def _output(layout: Layout) -> str:
    """Name, in the attention module, of the Linear that reads the heads."""
    return next(
        path.removeprefix(f"{layout.attention}.")
        for path, (_, columns) in layout.sites.items()
        if columns == "query"
    )


class Silent:
    """An attention without heads."""

    _made_of: tuple[type, str]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickled as what its class, which is made at run time, is made of."""
        return _empty_silent, self._made_of, self.__dict__


@cache
def _silent(stock: type, output: str) -> type:
    """An attention class without heads: it adds the output's bias, if there is one."""

    class SilentAttention(Silent, stock):
        _made_of = (stock, output)

        def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, None]:
            cache_ = kwargs.get("past_key_values")
            if cache_ is not None:  # its length is asked of one layer for all
                token = hidden_states[:, None, :, :1]
                cache_.update(token, token, self.layer_idx)
            return getattr(self, output)(hidden_states[..., :0]), None

    SilentAttention.__name__ = SilentAttention.__qualname__ = f"Silent{stock.__name__}"
    return SilentAttention


def _empty_silent(stock: type, output: str) -> Any:
    """An attention without heads for pickle and copy to fill."""
    return object.__new__(_silent(stock, output))


def resize(linear: nn.Linear, out_features: int, in_features: int) -> None:
    """Give a Linear new, uninitialised parameters of another size; empty ones are not trained."""
    linear.out_features, linear.in_features = out_features, in_features
    weight_OI = linear.weight.new_empty(out_features, in_features)
    linear.weight = nn.Parameter(weight_OI, requires_grad=weight_OI.numel() > 0)
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.new_empty(out_features), out_features > 0)


def make_config(base: str, layout: Layout) -> type:
    """The config class of pruned models of the type `base`; no model code is imported for it.

    Args:
        base: the stock `model_type`, such as "llama"; the new one is "pruned_llama".
        layout: the family's layout.
    """
    stock_config: Any = CONFIG_MAPPING[base]
    counted = frozenset(layout.keys.values())

    class Config(stock_config):
        model_type = f"pruned_{base}"

        def __getattribute__(self, key: str) -> Any:
            # The global counts are for the stock __init__; transformers would warn of each reading.
            if key in counted:
                return object.__getattribute__(self, key)
            return super().__getattribute__(key)

    return _named(Config, stock_config)


def make_models(base: str, layout: Layout, config: type) -> tuple[type, type]:
    """The classes for pruned models of the type `base`: the base model, and the model with a head.

    Args:
        base: the stock `model_type`.
        layout: the family's layout.
        config: what `make_config` made of the two.
    """
    stock_config: Any = CONFIG_MAPPING[base]
    stock_model: Any = MODEL_MAPPING[stock_config]
    stock_whole: Any = getattr(transformers, layout.auto_class)._model_mapping[stock_config]
    if isinstance(stock_whole, tuple):  # of several classes the first is the usual one
        stock_whole = stock_whole[0]
    # Where it sees no GenerationMixin, transformers makes one more class, which pickle cannot find.
    mixin = transformers.GenerationMixin
    bases: Any = (stock_whole, mixin) if issubclass(stock_whole, mixin) else (stock_whole,)

    class Model(stock_model):
        config_class = config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            _resize_blocks(self, layout.blocks.partition(".")[2], layout)

    class Whole(*bases):  # type: ignore[misc]
        config_class = config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            _resize_blocks(self, layout.blocks, layout)

    return _named(Model, stock_model), _named(Whole, stock_whole)


def _named(cls: type, stock: type) -> type:
    cls.__name__ = cls.__qualname__ = f"Pruned{stock.__name__}"
    cls.__doc__ = f"{stock.__name__} whose blocks have their own counts (`per_layer_config`)."
    return cls


def _resize_blocks(model: Any, path: str, layout: Layout) -> None:
    biases = getattr(model.config, "pruned_biases", None) or ()
    for index, block in enumerate(_blocks(model, path)):
        counts = _counts(model.config, index, layout.keys)
        head_dim = block.get_submodule(layout.attention).head_dim if layout.attention else 1
        kv = counts["kv_heads"] * head_dim
        sizes = {"query": counts["heads"] * head_dim, "key": kv, "value": kv}
        sizes["neuron"] = counts["width"]
        for site, (rows, columns) in layout.sites.items():
            linear = block.get_submodule(site)
            out_features = sum(sizes[role] for role in rows) if rows else linear.out_features
            resize(linear, out_features, sizes.get(columns, linear.in_features))
            if site in biases and linear.bias is None:
                linear.bias = nn.Parameter(linear.weight.new_zeros(out_features))
            model._init_weights(linear)
        set_counts(model.config, block, counts, layout)


def _blocks(model: Any, path: str) -> list[Any]:
    """The blocks in the lists at a path."""
    holders = [model]
    for part in path.split("."):
        if part == "*":
            holders = [child for holder in holders for child in holder.children()]
        else:
            holders = [holder.get_submodule(part) for holder in holders]
    return [block for holder in holders for block in holder.children()]


def _counts(config: Any, index: int, keys: dict[str, str]) -> dict[str, int]:
    of_stages = getattr(config, "pruned_counts", None)
    if of_stages:
        return dict(of_stages[index])
    per_block = getattr(config, "per_layer_config", {})
    if isinstance(per_block, dict):  # transformers before 5.14 hands on what the JSON says
        block = {int(i): values for i, values in per_block.items()}.get(index, {})
        counts = {role: block.get(key, getattr(config, key)) for role, key in keys.items()}
    else:
        counts = {role: getattr(per_block[index], key) for role, key in keys.items()}
    counts.setdefault("kv_heads", counts["heads"])
    return counts
