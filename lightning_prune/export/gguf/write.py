"""A Hugging Face folder as one GGUF file, for llama.cpp and what is built on it.

Axes of shapes: O output features, I input features; a quantised row runs over I.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from typing import Literal, get_args

import gguf
import numpy as np
import torch

from lightning_prune.checkpoints.config import read_tokenizer
from lightning_prune.checkpoints.folder import check_room
from lightning_prune.checkpoints.load import check_stored
from lightning_prune.checks import check_choice
from lightning_prune.export.gguf.architectures import Architecture, choose
from lightning_prune.export.gguf.blocks import Model, read_model
from lightning_prune.export.gguf.lazy import Lazy
from lightning_prune.export.gguf.metadata import add_metadata, context_length, rope_factors
from lightning_prune.export.gguf.tokenizer import add_tokenizer, model_name
from lightning_prune.files import replacing

__all__ = ["GGUFDType", "GGUFFile", "to_gguf"]

GGUFDType = Literal["f32", "f16", "bf16", "q8_0"]

_TYPES = {name: gguf.GGMLQuantizationType[name.upper()] for name in get_args(GGUFDType)}
_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_STORED = {torch.float16: "f16", torch.bfloat16: "bf16"}
LEAST_WIDTH = 32
"""Neurons of zeros for a block without an MLP: deci's graph forgets its attention otherwise."""


@dataclass(frozen=True)
class GGUFFile:
    """A file that was written.

    Attributes:
        path: where it is.
        architecture: llama.cpp's name of it.
        dtype: of the matrices.
        parameters: numbers in it, with those that padding added.
        size: bytes.
        notes: what a user should know: what differs from the folder, and what that costs.
    """

    path: Path
    architecture: str
    dtype: str
    parameters: int
    size: int
    notes: tuple[str, ...]


def to_gguf(
    folder: str | Path,
    path: str | Path,
    dtype: GGUFDType | None = None,
    pad: int = 1,
    verify: bool = True,
) -> GGUFFile:
    """Write a saved model, uniform or uneven, as a GGUF file, whole or not at all.

    The architecture is the family's own where its blocks are alike, and else "deci" (Llama,
    Mistral, Phi-3, Qwen2) or "openelm" (Qwen3), which know counts by block. One tensor at a time
    is in memory. Blocks that do nothing are left out; a block without an MLP gets a narrow one of
    zeros, and one without attention, where the architecture needs one, a head of zeros.

    Args:
        folder: a Hugging Face folder with safetensors.
        path: the file to write, NAME.gguf; one that is there is replaced.
        dtype: of the matrices; vectors are always float32. None: as the folder has them. In
            "q8_0" a matrix whose rows are no multiple of 32 stays float16.
        pad: widen each MLP with zeros to a multiple of this: 32 for q8_0, 256 for k-quants.
        verify: compare the folder with its checksums.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: llama.cpp cannot express the model or its tokenizer, the folder is damaged, or
            a weight is not finite.
        OSError: too little room on the disk.
    """
    folder, path = Path(folder), Path(path)
    if pad < 1:
        raise ValueError(f"pad={pad} is not allowed: give a multiple such as 32 or 256")
    check_choice("dtype", dtype, (*_TYPES, None))
    if path.suffix != ".gguf" or path.is_dir():
        raise ValueError(f"{path} is not the name of a GGUF file: give one that ends in .gguf")
    reader, config, own_head = check_stored(folder, verify)
    stored = read_model(reader, config, str(folder))
    model = _without_idle_blocks(_padded(stored, pad))
    table = choose(model, str(folder))
    if dtype is None:
        dtype = _STORED.get(reader.info["model.embed_tokens.weight"].dtype, "f32")  # type: ignore[assignment]
        assert dtype is not None
    tensors = dict(_tensors(_with_heads(model, table), table))
    types = {name: _type(tensor, dtype) for name, tensor in tensors.items()}
    tokenizer = read_tokenizer(folder)
    with replacing(path) as temporary:
        writer = gguf.GGUFWriter(temporary, table.name)
        writer.add_name(model_name(folder, tokenizer))
        add_metadata(writer, _with_heads(model, table), table)
        writer.add_file_type(_FILE_TYPES[dtype])
        if dtype == "q8_0":
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        notes = add_tokenizer(writer, tokenizer, folder, config)
        zeros = _write(writer, path, tensors, types)
    parameters = sum(prod(tensor.shape) for tensor in tensors.values())
    notes = [*_notes(stored, model, table, types, dtype, parameters), *notes]
    if own_head:
        notes.append("the head is the stored one, though config.json says that it is tied")
    if zeros > 0.05 * parameters:
        notes.append(
            f"{zeros / parameters:.0%} of the numbers in the file are zero, which makes it neither "
            "smaller nor faster"
        )
    size = path.stat().st_size
    return GGUFFile(path, table.name, dtype, parameters, size, tuple(notes))


# --- the blocks, as the architecture wants them ---


def _padded(model: Model, pad: int) -> Model:
    def width(neurons: int) -> int:
        return pad * ceil((neurons or LEAST_WIDTH) / pad)

    blocks = [b if b.is_nothing else b.with_width(width(b.width)) for b in model.blocks]
    return replace(model, blocks=blocks)


def _without_idle_blocks(model: Model) -> Model:
    blocks = [block for block in model.blocks if not block.is_nothing]
    if not blocks:
        raise ValueError("no block of this model does anything; there is nothing to export")
    return replace(model, blocks=blocks)


def _with_heads(model: Model, table: Architecture) -> Model:
    """A head of zeros where there is no attention and the architecture cannot do without."""
    blocks = [
        block
        if block.heads or (table.no_heads and index and "o_proj" not in block.biases)
        else block.with_a_head()
        for index, block in enumerate(model.blocks)
    ]
    return replace(model, blocks=blocks)


# --- the tensors, by their new names ---


def _tensors(model: Model, table: Architecture) -> Iterator[tuple[str, Lazy]]:
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == table.name)
    names = gguf.get_tensor_name_map(arch, len(model.blocks))

    def renamed(name: str, tensor: Lazy) -> tuple[str, Lazy]:
        stem, _, kind = name.rpartition(".")
        if table.plus_one and stem.endswith("norm"):
            tensor = tensor.plus_one()
        new = names.get_name(stem)
        assert new is not None, f"gguf has no name for {name} in {table.name}"
        return f"{new}.{kind}", tensor

    if (factors := rope_factors(model)) is not None:
        yield "rope_freqs.weight", factors
    for name, tensor in model.outside.items():
        yield renamed(name, tensor) if name != "lm_head.weight" else ("output.weight", tensor)
    for index, block in enumerate(model.blocks):
        tensors = dict(block.tensors)
        if not block.heads:
            attention = ("self_attn.", "input_layernorm.")
            tensors = {n: t for n, t in tensors.items() if not n.startswith(attention)}
        elif table.interleaved:
            for name, heads in (("q_proj", block.heads), ("k_proj", block.kv_heads)):
                for whole in (f"self_attn.{name}.weight", f"self_attn.{name}.bias"):
                    if whole in tensors:
                        tensors[whole] = tensors[whole].interleaved(heads)
        elif table.fused:
            parts = [tensors.pop(f"self_attn.{name}_proj.weight") for name in "qkv"]
            tensors["self_attn.qkv_proj.weight"] = Lazy.cat(parts)
        for name, tensor in tensors.items():
            yield renamed(f"model.layers.{index}.{name}", tensor)


# --- the file ---


def _type(tensor: Lazy, dtype: str) -> gguf.GGMLQuantizationType:
    if len(tensor.shape) == 1:
        return gguf.GGMLQuantizationType.F32
    size, _ = gguf.GGML_QUANT_SIZES[_TYPES[dtype]]
    return gguf.GGMLQuantizationType.F16 if tensor.shape[-1] % size else _TYPES[dtype]


def _write(
    writer: gguf.GGUFWriter,
    path: Path,
    tensors: dict[str, Lazy],
    types: dict[str, gguf.GGMLQuantizationType],
) -> int:
    """Write the file; how many of its numbers are zero."""
    total = zeros = 0
    for name, tensor in tensors.items():
        block, size = gguf.GGML_QUANT_SIZES[types[name]]
        total += (nbytes := prod(tensor.shape) // block * size)
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), nbytes, types[name])
    check_room(path, total)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors.items():
            values = _values(name, tensor)
            zeros += values.numel() - int(values.count_nonzero())
            writer.write_tensor_data(_array(name, values, types[name]))
    finally:
        writer.close()
    return zeros


def _values(name: str, tensor: Lazy) -> torch.Tensor:
    """One tensor.

    Raises:
        ValueError: a number is not finite.
    """
    values = tensor.read()
    assert tuple(values.shape) == tensor.shape, name
    if not values.isfinite().all():
        raise ValueError(f"{name} has numbers that are not finite; such a model says nothing")
    return values


def _array(name: str, values: torch.Tensor, type_: gguf.GGMLQuantizationType) -> np.ndarray:
    """One tensor's content.

    Raises:
        ValueError: a number is too large for float16.
    """
    if type_ == gguf.GGMLQuantizationType.BF16:
        bits: np.ndarray = values.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
        return bits
    if type_ == gguf.GGMLQuantizationType.F16:
        halves = values.to(torch.float16)
        if not halves.isfinite().all():
            raise ValueError(f"{name} has numbers too large for float16; export as bf16 or f32")
        return np.ascontiguousarray(halves.numpy())
    return gguf.quants.quantize(np.ascontiguousarray(values.float().numpy()), type_)


def _notes(
    stored: Model,
    model: Model,
    table: Architecture,
    types: dict[str, gguf.GGMLQuantizationType],
    dtype: str,
    parameters: int,
) -> Iterator[str]:
    before = [block.width for block in stored.blocks if not block.is_nothing]
    after = [block.width for block in model.blocks]
    widened = [new - old for old, new in zip(before, after, strict=True) if new > old]
    if widened:
        more = sum(widened) * 3 * int(stored.config.hidden_size)
        yield (
            f"padding: {sum(widened)} neurons of zeros in {len(widened)} blocks, "
            f"{more / parameters:.1%} of all parameters in the file"
        )
    if idle := len(stored.blocks) - len(model.blocks):
        yield f"{idle} blocks that do nothing are left out"
    halves = [n for n, t in types.items() if t == gguf.GGMLQuantizationType.F16 and dtype != "f16"]
    if halves:
        yield (
            f"matrices that stay float16, as their rows are no multiple of 32: {len(halves)}, such "
            f"as {halves[0]}"
            + (" (--pad 32 widens MLPs)" if any("ffn" in n for n in halves) else "")
        )
    longest = context_length(model, table)
    if longest < stored.config.max_position_embeddings:
        yield (
            f"the context is {longest} tokens, the sliding window, which {table.name} does not "
            "know: up to there the results are the same"
        )
