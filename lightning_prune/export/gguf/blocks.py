"""Decoder blocks as stored, in one form for all families: Llama's names, one Linear a matrix.

Axes of shapes: O output features, I input features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedConfig

from lightning_prune.anatomy import PRUNED_PREFIX, family_of
from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.export.gguf.lazy import Lazy

__all__ = ["Block", "Model", "read_model"]

HEADS = {"q_proj": "heads", "k_proj": "kv_heads", "v_proj": "kv_heads"}
NEURONS = ("gate_proj", "up_proj")


@dataclass(frozen=True)
class Block:
    """One block: its counts, and its tensors by Llama's names ("self_attn.q_proj.weight")."""

    heads: int
    kv_heads: int
    width: int
    head_dim: int
    sliding: bool
    tensors: dict[str, Lazy]

    @property
    def biases(self) -> set[str]:
        """The Linears that have a bias, by their last name."""
        return {name.split(".")[-2] for name in self.tensors if name.endswith(".bias")}

    @property
    def is_nothing(self) -> bool:
        """Whether the block hands on what it gets."""
        return self.heads == self.width == 0 and not self.biases & {"o_proj", "down_proj"}

    def with_width(self, width: int) -> Block:
        """The same function with neurons added that are always zero."""
        more = width - self.width
        tensors = {
            name: tensor.grown(rows=more)
            if name.split(".")[-2] in NEURONS
            else tensor.grown(columns=more)
            if name == "mlp.down_proj.weight"
            else tensor
            for name, tensor in self.tensors.items()
        }
        return replace(self, width=width, tensors=tensors)

    def with_a_head(self) -> Block:
        """The same function with one head in place of none; it adds zero."""
        more = self.head_dim
        tensors = {
            name: tensor.grown(rows=more)
            if name.split(".")[-2] in HEADS
            else tensor.grown(columns=more)
            if name == "self_attn.o_proj.weight"
            else tensor
            for name, tensor in self.tensors.items()
        }
        return replace(self, heads=1, kv_heads=1, tensors=tensors)


@dataclass(frozen=True)
class Model:
    """What is to be written: the config, and the tensors inside and outside the blocks."""

    base: str
    config: PreTrainedConfig
    blocks: list[Block]
    outside: dict[str, Lazy]

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return "lm_head.weight" not in self.outside

    @property
    def is_even(self) -> bool:
        """Whether all blocks have the same counts, none of them zero."""
        counts = {(block.heads, block.kv_heads, block.width) for block in self.blocks}
        return len(counts) == 1 and all(counts.pop())

    @property
    def biases(self) -> set[str]:
        """The Linears that have a bias in any block."""
        return set().union(*(block.biases for block in self.blocks))


def read_model(reader: TensorReader, config: PreTrainedConfig, source: str) -> Model:
    """The model of a folder; no tensor is read yet.

    Args:
        reader: the folder's tensors.
        config: its config.
        source: the folder's name, for messages.

    Raises:
        ValueError: the family is not made of Llama's blocks, a tensor is missing, or is left over.
    """
    base = config.model_type.removeprefix(PRUNED_PREFIX)
    family = family_of(base)
    if family.attention != "self_attn" or family.blocks != "model.layers":
        raise ValueError(
            f"{source} is a model of the type {base!r}, whose blocks llama.cpp has no architecture "
            "for. Save it as a Hugging Face folder instead (--to hf)."
        )
    left = {name: _lazy(reader, name) for name in reader.info}
    try:
        blocks = [_block(left, i, config) for i in range(config.num_hidden_layers)]
        outside = {name: left.pop(name) for name in ("model.embed_tokens.weight",)}
        outside["model.norm.weight"] = left.pop("model.norm.weight")
        if not config.tie_word_embeddings:
            outside["lm_head.weight"] = left.pop("lm_head.weight")
    except KeyError as error:
        raise ValueError(
            f"the weights in {source} lack {error.args[0]}; the folder is incomplete, or a part "
            "of a model. Save or download it again."
        ) from error
    left.pop("lm_head.weight", None)
    unknown = [name for name in left if not name.endswith("rotary_emb.inv_freq")]
    if unknown:
        raise ValueError(f"{source} has {unknown[0]}, which no GGUF architecture has a place for")
    return Model(base, config, blocks, outside)


def _lazy(reader: TensorReader, name: str) -> Lazy:
    return Lazy(reader.info[name].shape, lambda: reader.tensor(name))


def _block(left: dict[str, Lazy], index: int, config: Any) -> Block:
    """Take one block's tensors out of `left`."""
    prefix = f"model.layers.{index}."
    names = [name for name in left if name.startswith(prefix)]
    tensors = {
        name.removeprefix(prefix): left.pop(name)
        for name in names
        if not name.endswith("rotary_emb.inv_freq")
    }
    head_dim = getattr(config, "head_dim", None)
    head_dim = head_dim or config.hidden_size // config.num_attention_heads
    try:
        queries = tensors["self_attn.o_proj.weight"].shape[1]
        width = tensors["mlp.down_proj.weight"].shape[1]
        _split(tensors, "self_attn.qkv_proj", {"q_proj": queries, "k_proj": 0, "v_proj": 0})
        _split(tensors, "mlp.gate_up_proj", dict.fromkeys(NEURONS, width))
        keys = tensors["self_attn.k_proj.weight"].shape[0]
        for name in ("self_attn.q_proj", "self_attn.v_proj", *(f"mlp.{n}" for n in NEURONS)):
            tensors[f"{name}.weight"]
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{name}.weight"]
    except KeyError as error:
        raise KeyError(prefix + error.args[0]) from error
    types = getattr(config, "layer_types", None)
    sliding = types[index] == "sliding_attention" if types else bool(_window(config))
    return Block(queries // head_dim, keys // head_dim, width, head_dim, sliding, tensors)


def _window(config: Any) -> int | None:
    return getattr(config, "sliding_window", None)


def _split(tensors: dict[str, Lazy], fused: str, sizes: dict[str, int]) -> None:
    """Take a fused matrix apart; parts of size 0 share what the others leave."""
    where = fused.rpartition(".")[0]
    for kind in ("weight", "bias"):
        whole = tensors.pop(f"{fused}.{kind}", None)
        if whole is None:
            continue
        rest = whole.shape[0] - sum(sizes.values())
        open_ = sum(not size for size in sizes.values()) or 1
        start = 0
        for name, size in sizes.items():
            stop = start + (size or rest // open_)
            tensors[f"{where}.{name}.{kind}"] = whole.rows(start, stop)
            start = stop
