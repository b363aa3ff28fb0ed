"""The names of the files in a Hugging Face model folder, and which of them hold its weights."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = [
    "ADAPTER",
    "CARD",
    "CHECKSUMS",
    "CODE",
    "CONFIG",
    "INDEX",
    "PROCESSOR",
    "REPORT",
    "THRESHOLDS",
    "WEIGHTS",
    "shard_name",
    "weight_files",
]

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
CODE = "modeling_pruned.py"
PROCESSOR = "preprocessor_config.json"
THRESHOLDS = "activation_thresholds.json"
CARD, REPORT, CHECKSUMS = "README.md", "report.json", "checksums.json"

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl")


def shard_name(number: int, count: int) -> str:
    """The name of a file of weights: the `number`-th, from 1 on, of `count`."""
    return WEIGHTS if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model's weights: one, or the shards that the index names.

    Raises:
        FileNotFoundError: there are no weights, or a shard is missing.
        ValueError: there are pickled weights only, or the index is damaged.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        if pickled:
            raise ValueError(
                f"{folder} has its weights in {pickled[0]}, which is pickled and could run any "
                "code. Only safetensors are read: convert it in a place where you trust the file."
            )
        raise FileNotFoundError(f"{folder} has no weights: neither {WEIGHTS} nor {INDEX} is there")
    try:
        weight_map = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = [folder / name for name in sorted(set(weight_map.values()))]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / INDEX} is damaged ({error!r}). Save or download it again."
        ) from error
    for path in files:
        if not path.is_file():
            tensors = [name for name, file in weight_map.items() if file == path.name]
            raise FileNotFoundError(
                f"{path} is named in {INDEX} and does not exist; {tensors[0]} should be in it, and "
                f"{len(tensors) - 1} more tensors. Save or download it again."
            )
    return files
