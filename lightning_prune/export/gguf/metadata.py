"""The numbers of an architecture that llama.cpp reads, and the rotary embedding's factors."""

from __future__ import annotations

from typing import Any

import torch
from gguf import GGUFWriter, RopeScalingType
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lightning_prune.export.gguf.architectures import Architecture, rope_of
from lightning_prune.export.gguf.blocks import Model
from lightning_prune.export.gguf.lazy import Lazy

__all__ = ["add_metadata", "context_length", "rope_factors"]


def add_metadata(writer: GGUFWriter, model: Model, table: Architecture) -> None:
    """Add everything but the tokenizer."""
    config: Any = model.config
    blocks, head_dim = model.blocks, model.blocks[0].head_dim
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(context_length(model, table))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(len(blocks))
    for add, counts in (
        (writer.add_head_count, [block.heads for block in blocks]),
        (writer.add_head_count_kv, [block.kv_heads for block in blocks]),
        (writer.add_feed_forward_length, [block.width for block in blocks]),
    ):
        add(counts if table.per_block else counts[0])
    writer.add_key_length(head_dim)  # without them: hidden size / heads of the first block
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_rope(writer, config)
    if table.slides:
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern([block.sliding for block in blocks])
        writer.add_rope_freq_base_swa(rope_of(config, "sliding_attention")["rope_theta"])
    if cap := getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(cap)
    if cap := getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(cap)


def context_length(model: Model, table: Architecture) -> int:
    """The longest context: no longer than a sliding window that the architecture does not know.

    Up to that length a window sees everything, so that the results are the same.
    """
    config: Any = model.config
    length: int = config.max_position_embeddings
    if not table.slides and any(block.sliding for block in model.blocks):
        return min(length, config.sliding_window)
    return length


def rope_factors(model: Model) -> Lazy | None:
    """What each rotary frequency is divided by (D/2,), where the embedding is Llama 3's."""
    config: Any = model.config
    if rope_of(config)["rope_type"] != "llama3":
        return None
    dim = model.blocks[0].head_dim

    def read() -> torch.Tensor:
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        plain = rope_of(config)["rope_theta"] ** -(torch.arange(0, dim, 2).float() / dim)
        return plain / scaled

    return Lazy((dim // 2,), read)


def _add_rope(writer: GGUFWriter, config: Any) -> None:
    rope = rope_of(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
