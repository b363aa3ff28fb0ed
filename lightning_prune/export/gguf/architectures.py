"""What llama.cpp's architectures can express: one table an architecture, and the choice.

The tables say what llama.cpp's loaders and graphs do (src/models/*.cpp); where they would refuse a
file, or compute something else, the reason is given here, before anything is written. Most
architectures read the counts of heads and neurons once for all blocks; "deci" (made for
Nemotron-NAS, of Llama's blocks) and "openelm" read them block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lightning_prune.export.gguf.blocks import Model

__all__ = ["ARCHITECTURES", "Architecture", "choose", "rope_of"]

QKV = frozenset({"q_proj", "k_proj", "v_proj"})
ALL = QKV | {"o_proj", "gate_proj", "up_proj", "down_proj"}


@dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp.

    Attributes:
        name: as in the file's `general.architecture`.
        model_types: the families that it can express, by their Hugging Face name.
        interleaved: its rotary embedding turns features that are neighbours, so that the rows of
            queries and keys are put in that order.
        fused: queries, keys and values are one matrix.
        per_block: blocks may differ in heads and neurons.
        no_heads: blocks may be without attention (not the first one: the head size is read there).
        biases: the Linears that may have a bias.
        own_head: the head may be another matrix than the embeddings.
        square: heads times head size must be the hidden size.
        slides: it knows sliding windows, by block.
        plus_one: its norms' weights are stored with one added.
        activation: of the MLP.
        ropes: kinds of rotary embeddings.
        scale_by_blocks: the number of blocks for which it scales attention in another way.
    """

    name: str
    model_types: tuple[str, ...]
    interleaved: bool = False
    fused: bool = False
    per_block: bool = False
    no_heads: bool = False
    biases: frozenset[str] = frozenset()
    own_head: bool = True
    square: bool = False
    slides: bool = False
    plus_one: bool = False
    activation: str = "silu"
    ropes: tuple[str, ...] = ("default", "linear")
    scale_by_blocks: int | None = None

    def objections(self, model: Model) -> Iterator[str]:
        """What of a model it cannot express."""
        config: Any = model.config
        if not (self.per_block or model.is_even):
            yield "it has one count of heads and of neurons, and the blocks differ"
        if biases := model.biases - self.biases:
            yield f"it has no place for a bias of {', '.join(sorted(biases))}"
        if not (self.own_head or model.tied):
            yield "its head is its embedding, and this model has a head of its own"
        block = model.blocks[0]
        if self.square and block.heads * block.head_dim != config.hidden_size:
            yield (
                f"it wants heads x head size to be the hidden size, and {block.heads} x "
                f"{block.head_dim} is not {config.hidden_size}"
            )
        if getattr(config, "use_bidirectional_attention", False):
            yield "its attention looks back only, and this model's in both directions"
        activation = getattr(config, "hidden_activation", None) or config.hidden_act
        if activation != self.activation:
            yield f"its activation is {self.activation}, and this model's is {activation}"
        kind = rope_of(config)["rope_type"]
        if kind not in self.ropes:
            yield f"its rotary embeddings are {' or '.join(self.ropes)}, and not {kind}"
        if rope_of(config).get("partial_rotary_factor") not in (None, 1, 1.0):
            yield "it turns all features of a head, and this model a part of them"
        if self.scale_by_blocks is not None:
            if config.query_pre_attn_scalar != block.head_dim:
                yield (
                    f"it scales attention by the head size, {block.head_dim}, and this model by "
                    f"{config.query_pre_attn_scalar}"
                )
            if len(model.blocks) == self.scale_by_blocks:
                yield f"with {self.scale_by_blocks} blocks it scales attention by the hidden size"


_LLAMA_ROPES = ("default", "linear", "llama3")

ARCHITECTURES = (
    Architecture("qwen2", ("qwen2",), biases=QKV, square=True),
    Architecture("qwen3", ("qwen3",)),
    Architecture(
        "gemma2",
        ("gemma2",),
        own_head=False,
        slides=True,
        plus_one=True,
        activation="gelu_pytorch_tanh",
        ropes=("default",),
        scale_by_blocks=46,
    ),
    Architecture(
        "gemma3",
        ("gemma3_text",),
        slides=True,
        plus_one=True,
        activation="gelu_pytorch_tanh",
        scale_by_blocks=62,
    ),
    Architecture(
        "llama",
        ("llama", "mistral", "phi3", "qwen2"),
        interleaved=True,
        biases=ALL,
        ropes=_LLAMA_ROPES,
    ),
    Architecture(
        "deci",
        ("llama", "mistral", "phi3", "qwen2"),
        interleaved=True,
        per_block=True,
        no_heads=True,
        biases=ALL,
        ropes=_LLAMA_ROPES,
    ),
    Architecture(
        "openelm", ("qwen3",), fused=True, per_block=True, own_head=False, ropes=("default",)
    ),
)
"""In the order in which they are tried."""


def choose(model: Model, source: str) -> Architecture:
    """The first architecture that can express a model.

    Raises:
        ValueError: none can; each says why.
    """
    tried = [table for table in ARCHITECTURES if model.base in table.model_types]
    reasons = {table.name: list(table.objections(model)) for table in tried}
    for table in tried:
        if not reasons[table.name]:
            return table
    why = "; ".join(f"{name}: {', and '.join(objections)}" for name, objections in reasons.items())
    raise ValueError(
        f"no architecture of llama.cpp can express the {model.base} model in {source} "
        f"({why or 'none is known for this family'}). Save it as a Hugging Face folder (--to hf), "
        "which keeps everything."
    )


def rope_of(config: Any, kind: str = "full_attention") -> dict[str, Any]:
    """The parameters of the rotary embedding, of one kind of attention where they differ."""
    parameters: dict[str, Any] = config.rope_parameters
    return parameters.get(kind, parameters)
