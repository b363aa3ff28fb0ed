"""What a saved model is made of, from its config and its files; no weight of it is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageClassification

from lightning_prune.analysis.zeros import sparsity
from lightning_prune.anatomy import PRUNED_PREFIX, Anatomy, Family, family_of, quantisation
from lightning_prune.checkpoints.config import raw_config, read_config
from lightning_prune.checkpoints.names import CONFIG
from lightning_prune.checkpoints.reader import TensorInfo, TensorReader
from lightning_prune.plan import Plan

__all__ = ["BlockCounts", "Structure", "structure"]

Tensors = dict[tuple[int | None, str], tuple[int, ...]]
"""Shapes by block (None: in no block) and name in it, such as (3, "mlp.up_proj.weight")."""


@dataclass(frozen=True)
class BlockCounts:
    """One block.

    Attributes:
        index: its place in the dense model, where the plan beside the weights says which blocks
            were dropped; else its place in this one.
        heads: query heads; 0 if there is no attention, or none whose heads could be cut.
        kv_heads: key/value heads.
        width: MLP neurons; 0 if there is no MLP.
        parameters: entries of all its tensors.
    """

    index: int
    heads: int
    kv_heads: int
    width: int
    parameters: int


@dataclass(frozen=True)
class Structure:
    """One saved model.

    Attributes:
        path: its folder.
        model_type: of the config; pruned models are named by the type that they come from.
        hidden: size of the residual stream; None where stages of blocks differ in it.
        vocabulary: number of tokens; None where the model reads images.
        head_dim: features of an attention head; 1 where there are none that could be cut.
        dtypes: of the tensors, the one with most entries first.
        blocks: in order.
        parameters: entries of all tensors, as stored: tied ones count once.
        nonzero: how many of these are not zero.
        bytes: of the tensors as stored.
        tensors: all shapes; blocks by their `index`.
    """

    path: str
    model_type: str
    hidden: int | None
    vocabulary: int | None
    head_dim: int
    dtypes: tuple[str, ...]
    blocks: tuple[BlockCounts, ...]
    parameters: int
    nonzero: int
    bytes: int
    tensors: Tensors


def structure(folder: str | Path) -> Structure:
    """Read what a model in a Hugging Face folder is made of: ours or stock, even or uneven.

    Counts of heads and neurons are read from the shapes of the stored tensors, so that they are
    what is there, not what the config says; of image classifiers, whose tensors are stored under
    names that are not the modules', from the model that the config describes, without its weights.
    All weights are read once, to count zeros.

    Raises:
        FileNotFoundError: no such folder, or no config or weights in it.
        ValueError: an unknown model type, packed weights, pickled weights only, or a damaged file.
    """
    folder = Path(folder)
    config = _config(folder)
    family = family_of(config["model_type"])
    images = family.task.judged_by == "accuracy"
    language = () if images else ("vocab_size", family.heads_key)
    needed = (*(() if family.staged else ("hidden_size",)), *language)
    if missing := [key for key in needed if key not in config]:
        raise ValueError(f"{folder / CONFIG} lacks {', '.join(missing)}; save the model again")
    if packing := quantisation(config):
        raise ValueError(
            f"the weights in {folder} are quantised ({packing}), and their packed "
            "shapes do not tell heads and neurons. Give the folder from before quantisation."
        )
    stored = TensorReader(folder).info
    zeros = sparsity(folder, ())
    if images:
        head_dim, blocks, tensors = _described(folder)
    else:
        numbers = _numbers(folder, _block_count(stored, family))
        tensors = _tensors(stored, family, numbers)
        head_dim = config.get("head_dim") or config["hidden_size"] // config[family.heads_key]
        blocks = tuple(_counts(i, tensors, family, head_dim) for i in numbers)
    return Structure(
        path=str(folder),
        model_type=config["model_type"].removeprefix(PRUNED_PREFIX),
        hidden=None if family.staged else config["hidden_size"],
        vocabulary=None if images else config["vocab_size"],
        head_dim=head_dim,
        dtypes=_dtypes(stored),
        blocks=blocks,
        parameters=zeros.parameters,
        nonzero=zeros.parameters - zeros.zeros,
        bytes=sum(info.nbytes for info in stored.values()),
        tensors=tensors,
    )


# --- reading ---


def _config(folder: Path) -> dict[str, Any]:
    config = raw_config(folder)
    if "model_type" not in config:
        raise ValueError(f"{folder / CONFIG} is no config of a model: it has no model_type")
    return {**config, "model_type": str(config["model_type"])}


def _numbers(folder: Path, count: int) -> list[int]:
    """The places in the dense model of the blocks that are left."""
    try:
        decided = Plan.load(folder).blocks("block")
    except (FileNotFoundError, ValueError):
        decided = {}
    gone = {i for i, kept in decided.items() if not kept.index_U.numel()}
    left = [i for i in range(count + len(gone)) if i not in gone]
    return left if len(left) == count else list(range(count))


def _described(folder: Path) -> tuple[int, tuple[BlockCounts, ...], Tensors]:
    """Head size, blocks and shapes of the image classifier that a folder's config describes."""
    with torch.device("meta"):
        model = AutoModelForImageClassification.from_config(read_config(folder))
    blocks = Anatomy(model).blocks
    counts: list[BlockCounts] = []
    tensors: Tensors = {(None, name): shape for name, shape in _shapes(model).items()}
    for number, block in zip(_numbers(folder, len(blocks)), blocks, strict=True):
        parameters = sum(p.numel() for p in block.module.parameters())
        counts.append(BlockCounts(number, block.heads, block.kv_heads, block.width, parameters))
        for name, shape in _shapes(block.module).items():
            del tensors[None, f"{block.name}.{name}"]
            tensors[number, name] = shape
    return blocks[0].head_dim, tuple(counts), tensors


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


# --- counting ---


def _place(name: str, family: Family) -> tuple[int | None, str]:
    """The block that a tensor is in, and its name there."""
    blocks = family.blocks.rpartition(".")[2]
    place = re.fullmatch(rf"(?:.*\.)?{blocks}\.(\d+)\.(.+)", name)
    return (int(place[1]), place[2]) if place else (None, name)


def _block_count(names: Mapping[str, Any], family: Family) -> int:
    return 1 + max((i for n in names if (i := _place(n, family)[0]) is not None), default=-1)


def _tensors(stored: Mapping[str, TensorInfo], family: Family, numbers: list[int]) -> Tensors:
    tensors: Tensors = {}
    for name, info in stored.items():
        index, path = _place(name, family)
        tensors[None if index is None else numbers[index], path] = info.shape
    return tensors


def _counts(index: int, tensors: Tensors, family: Family, head_dim: int) -> BlockCounts:
    rows, columns = {}, {}
    for site in family.sites:
        shape = tensors.get((index, f"{site.path}.weight"), (0, 0))
        rows[site.rows], columns[site.columns] = shape[0], shape[1]
    heads = columns["query"] // head_dim
    fused = rows.get(("query", "key", "value"))
    keys = rows[("key",)] if fused is None else (fused - columns["query"]) // 2
    shapes = (shape for (block, _), shape in tensors.items() if block == index)
    return BlockCounts(
        index, heads, keys // head_dim, columns["neuron"], sum(math.prod(shape) for shape in shapes)
    )


def _dtypes(stored: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    sizes: dict[str, int] = {}
    for info in stored.values():
        name = str(info.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + info.numel
    return tuple(sorted(sizes, key=lambda name: -sizes[name]))
