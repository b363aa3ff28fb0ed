"""Where things are in each model family: one table a family, and no code.

To add a family, add a table: name its list of blocks, then every Linear of a block in the order in
which it runs, with what it reads and which units its rows and columns belong to. The tests of
`tests/anatomy` run over every table and check it against a small random model.

Roles of rows and columns: "query", "key" and "value" are split in heads of `head_dim`; "neuron" is
the inner width of the MLP; an empty role is the residual stream, which is never cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

__all__ = ["FAMILIES", "Family", "SiteTable"]


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
        blocks: path of the list of decoder blocks in the causal LM.
        sites: every Linear of a block.
        attention: path of the attention module inside a block.
        heads_key, kv_heads_key, width_key: config keys of the number of query heads, of key/value
            heads (None: as many as query heads) and of the MLP width.
        stores_head_dim: the stock class reads `config.head_dim`. Where it does not, the head size
            is hidden size / heads, and a model with fewer heads is not a stock model any more.
        attributes: module attributes inside a block that hold a count, as path → role
            ("heads", "kv_heads", "width").
        attention_reads_config: the attention's forward reads head counts from its config.
        pre_norm_key: config key that says, where it is false, that norms stand behind attention
            and MLP, so that no site adds to the residual stream as it is.
    """

    model_types: tuple[str, ...]
    blocks: str
    sites: tuple[SiteTable, ...]
    attention: str = "self_attn"
    heads_key: str = "num_attention_heads"
    kv_heads_key: str | None = "num_key_value_heads"
    width_key: str = "intermediate_size"
    stores_head_dim: bool = True
    attributes: dict[str, str] = field(default_factory=dict)
    attention_reads_config: bool = False
    pre_norm_key: str | None = None


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

FAMILIES: tuple[Family, ...] = (LLAMA, GEMMA, PHI3, OPT)
