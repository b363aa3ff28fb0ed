"""Where things are in each model family: one table a family, and no code.

To add a family, add a table here, or register one from outside with
`lightning_prune.register_family`: name its list of blocks, then every Linear of a block in the
order in which it runs, with what it reads and which units its rows and columns belong to. The tests
of `tests/anatomy` run over every table and check it against a small random model.

Roles of rows and columns: "query", "key" and "value" are split in heads of `head_dim`; "neuron" is
the inner width of the MLP; an empty role is the residual stream, which is never cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from lightning_prune.anatomy.tasks import CausalTask, ImageTask, Task
from lightning_prune.checks import meant

__all__ = ["FAMILIES", "PRUNED_PREFIX", "Family", "SiteTable", "add_family", "family_of"]

PRUNED_PREFIX = "pruned_"
"""`model_type` of a checkpoint with uneven widths: this prefix, then the type it comes from."""


@dataclass(frozen=True)
class SiteTable:
    """One Linear of a block.

    Attributes:
        path: the module's path inside the block.
        reads: name of the tensor that it reads; sites with the same name share their input.
        rows: roles of its output features, in order; a fused projection has several.
        columns: role of its input features.
        adds: its output is added to the residual stream as it is, with no norm in between.
    """

    path: str
    reads: str
    rows: tuple[str, ...] = ()
    columns: str = ""
    adds: bool = False


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        model_types: the `config.model_type` values that this table describes.
        blocks: path of the list of blocks in the model; with stages of blocks that differ in width,
            that of all lists, with * for the stage. What stands between two stages is not pruned.
        sites: every Linear of a block.
        task: what goes in, what of it counts, and what the head is to say.
        body: path of the module that makes of a batch what enters the first block, and runs the
            blocks; None: the module that holds their list.
        attention: path in a block of the attention module, which knows its `head_dim`; "": blocks
            have none whose heads could be cut.
        returns: how many values a block's forward returns; the hidden states come first.
        heads_key, kv_heads_key, width_key: config keys of the number of query heads, of key/value
            heads (None: as many as query heads) and of the MLP width.
        stores_head_dim: the stock class reads `config.head_dim`. Where it does not, the head size
            is hidden size / heads, and a model with fewer heads is not a stock model any more.
        attributes: module attributes inside a block that hold a count, as path → role
            ("heads", "kv_heads", "width").
        attention_reads_config: the attention's forward reads head counts from its config.
        width_in_config: the stock config has `width_key`. Where it does not, a model with fewer
            neurons is not a stock model any more.
        pre_norm_key: config key that says, where it is false, that norms stand behind attention
            and MLP, so that no site adds to the residual stream as it is.
    """

    model_types: tuple[str, ...]
    blocks: str
    sites: tuple[SiteTable, ...]
    task: Task = CausalTask()
    body: str | None = None
    attention: str = "self_attn"
    returns: int = 1
    heads_key: str = "num_attention_heads"
    kv_heads_key: str | None = "num_key_value_heads"
    width_key: str = "intermediate_size"
    stores_head_dim: bool = True
    width_in_config: bool = True
    attributes: dict[str, str] = field(default_factory=dict)
    attention_reads_config: bool = False
    pre_norm_key: str | None = None

    @property
    def staged(self) -> bool:
        """Whether its blocks stand in stages."""
        return "*" in self.blocks

    def blocks_of(self, model: nn.Module) -> dict[str, nn.Module]:
        """The blocks of a model, by their paths, in the order in which they run.

        Raises:
            AttributeError: the model is not laid out so.
        """
        found: dict[str, nn.Module] = {"": model}
        for part in f"{self.blocks}.*".split("."):
            found = {
                f"{path}.{name}".removeprefix("."): child
                for path, module in found.items()
                for name, child in (
                    module.named_children() if part == "*" else [(part, module.get_submodule(part))]
                )
            }
        return found

    def returned(self, hidden: torch.Tensor) -> Any:
        """Hidden states as a block's forward returns them."""
        return hidden if self.returns == 1 else (hidden, *(None,) * (self.returns - 1))


_LLAMA_SITES = (
    SiteTable("self_attn.q_proj", reads="attention_input", rows=("query",)),
    SiteTable("self_attn.k_proj", reads="attention_input", rows=("key",)),
    SiteTable("self_attn.v_proj", reads="attention_input", rows=("value",)),
    SiteTable("self_attn.o_proj", reads="attention_output", columns="query", adds=True),
    SiteTable("mlp.gate_proj", reads="mlp_input", rows=("neuron",)),
    SiteTable("mlp.up_proj", reads="mlp_input", rows=("neuron",)),
    SiteTable("mlp.down_proj", reads="mlp_inner", columns="neuron", adds=True),
)

LLAMA = Family(
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    blocks="model.layers",
    sites=_LLAMA_SITES,
    attributes={"mlp.intermediate_size": "width"},
)

GEMMA = replace(  # norms stand between its outputs and the residual stream
    LLAMA,
    model_types=("gemma2", "gemma3_text"),
    sites=tuple(replace(site, adds=False) for site in _LLAMA_SITES),
)

PHI3 = Family(
    model_types=("phi3",),
    blocks="model.layers",
    sites=(
        SiteTable("self_attn.qkv_proj", reads="attention_input", rows=("query", "key", "value")),
        SiteTable("self_attn.o_proj", reads="attention_output", columns="query", adds=True),
        SiteTable("mlp.gate_up_proj", reads="mlp_input", rows=("neuron", "neuron")),
        SiteTable("mlp.down_proj", reads="mlp_inner", columns="neuron", adds=True),
    ),
    attributes={"self_attn.num_key_value_heads": "kv_heads"},
    attention_reads_config=True,
)

OPT = Family(
    model_types=("opt",),
    blocks="model.decoder.layers",
    sites=(
        SiteTable("self_attn.q_proj", reads="attention_input", rows=("query",)),
        SiteTable("self_attn.k_proj", reads="attention_input", rows=("key",)),
        SiteTable("self_attn.v_proj", reads="attention_input", rows=("value",)),
        SiteTable("self_attn.out_proj", reads="attention_output", columns="query", adds=True),
        SiteTable("fc1", reads="mlp_input", rows=("neuron",)),
        SiteTable("fc2", reads="mlp_inner", columns="neuron", adds=True),
    ),
    kv_heads_key=None,
    width_key="ffn_dim",
    stores_head_dim=False,
    attributes={"self_attn.num_heads": "heads"},
    pre_norm_key="do_layer_norm_before",
)

_ENCODER_SITES = (
    SiteTable("attention.q_proj", reads="attention_input", rows=("query",)),
    SiteTable("attention.k_proj", reads="attention_input", rows=("key",)),
    SiteTable("attention.v_proj", reads="attention_input", rows=("value",)),
    SiteTable("attention.o_proj", reads="attention_output", columns="query", adds=True),
    SiteTable("mlp.fc1", reads="mlp_input", rows=("neuron",)),
    SiteTable("mlp.fc2", reads="mlp_inner", columns="neuron", adds=True),
)

VIT = Family(
    model_types=("vit",),
    blocks="vit.layers",
    sites=_ENCODER_SITES,
    task=ImageTask(),
    body="vit",
    attention="attention",
    kv_heads_key=None,
    attributes={"attention.num_attention_heads": "heads"},
)

DEIT = replace(VIT, model_types=("deit",), blocks="deit.layers", body="deit")

DINOV2 = replace(  # what its blocks add is scaled first
    VIT,
    model_types=("dinov2",),
    blocks="dinov2.encoder.layer",
    sites=tuple(replace(site, adds=False) for site in _ENCODER_SITES),
    body="dinov2",
    width_in_config=False,
)

# A table of positions has a column for each head, so that heads cannot go by themselves.
_POSITIONED_SITES = (
    *(replace(site, rows=(), columns="", adds=False) for site in _ENCODER_SITES[:4]),
    *(replace(site, adds=False) for site in _ENCODER_SITES[4:]),
)

BEIT = replace(
    VIT,
    model_types=("beit",),
    blocks="beit.layers",
    sites=_POSITIONED_SITES,
    body="beit",
    attention="",
    attributes={},
)

SWIN = replace(
    BEIT,
    model_types=("swin",),
    blocks="swin.encoder.layers.*.blocks",
    body="swin",
    returns=2,
    width_in_config=False,
)

CONVNEXT = Family(
    model_types=("convnext",),
    blocks="convnext.encoder.stages.*.layers",
    sites=(
        SiteTable("pwconv1", reads="mlp_input", rows=("neuron",)),
        SiteTable("pwconv2", reads="mlp_inner", columns="neuron"),
    ),
    task=ImageTask(),
    body="convnext",
    attention="",
    kv_heads_key=None,
    width_in_config=False,
)

FAMILIES: list[Family] = [
    *(LLAMA, GEMMA, PHI3, OPT),
    *(VIT, DEIT, DINOV2, BEIT, SWIN, CONVNEXT),
]
"""All that are known. `add_family` adds one."""


def add_family(family: Family) -> None:
    """Make a table known.

    Raises:
        TypeError: it is no `Family`.
        ValueError: one of its model types is known already, or a role or path does not make sense.
    """
    if not isinstance(family, Family):
        raise TypeError(f"{family!r} is no Family, which is a table; see docs/adding/family.md")
    for name in family.model_types:
        if any(name in known.model_types for known in FAMILIES):
            raise ValueError(f"model type {name!r} has a table already; register another name")
    roles = {role for site in family.sites for role in (*site.rows, site.columns)}
    if strange := roles - {"query", "key", "value", "neuron", ""}:
        raise ValueError(
            f"the table of {family.model_types[0]} has the roles {sorted(strange)}; rows and "
            "columns are 'query', 'key', 'value', 'neuron', or '' for the residual stream"
        )
    paths = [site.path for site in family.sites]
    if repeated := {path for path in paths if paths.count(path) > 1}:
        raise ValueError(f"the table of {family.model_types[0]} names {sorted(repeated)} twice")
    FAMILIES.append(family)


def family_of(model_type: str) -> Family:
    """The table of a model type.

    Raises:
        ValueError: there is none; the message lists the known types.
    """
    base = model_type.removeprefix(PRUNED_PREFIX)
    for family in FAMILIES:
        if base in family.model_types:
            return family
    known = sorted(name for family in FAMILIES for name in family.model_types)
    raise ValueError(
        f"unknown model type {model_type!r}.{meant(base, known)} Known: {', '.join(known)}. A "
        "family of your own is one table: see lightning_prune.register_family."
    )
