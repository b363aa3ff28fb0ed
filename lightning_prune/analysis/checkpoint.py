"""The files of a Hugging Face folder that hold weights, from their names and headers alone."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["CONFIG", "INDEX", "WEIGHTS", "weight_files"]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl")


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
            raise FileNotFoundError(f"{path} is named in {INDEX} and does not exist")
    return files
