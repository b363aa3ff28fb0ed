"""Whether a model's head is its embeddings: what is stored decides, whatever the config says.

Configs say `tie_word_embeddings` where the two are one tensor. A model whose head was trained, or
pruned, on its own may be stored with a config that still says so.
"""

from __future__ import annotations

import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune.checkpoints.names import CONFIG
from lightning_prune.checkpoints.reader import TensorReader

__all__ = ["config_follows", "has_own_head", "is_stored_apart", "warn_of_own_head"]

ROWS = 4096
"""How many rows of two matrices are compared at a time."""


def is_stored_apart(reader: TensorReader, model: nn.Module) -> bool:
    """Whether tensors that are one in a model are stored as several, with other values.

    Args:
        reader: what is stored.
        model: made as its config says; on the meta device is enough.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in reader.info:
            names.setdefault(id(parameter), []).append(name)
    pairs = (pair for tied in names.values() for pair in combinations(tied, 2))
    return any(_differ(reader, first, second) for first, second in pairs)


def has_own_head(model: nn.Module) -> bool:
    """Whether a model has a head whose weight is not that of its embeddings."""
    try:
        head, table = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return False
    weights = getattr(head, "weight", None), getattr(table, "weight", None)
    return None not in weights and weights[0] is not weights[1]


def config_follows(model: Any) -> bool:
    """Say in a model's config that its head is its own, if it is; whether that had to be said."""
    if not (getattr(model.config, "tie_word_embeddings", False) and has_own_head(model)):
        return False
    model.config.tie_word_embeddings = False
    return True


def warn_of_own_head(source: str | Path) -> None:
    """Tell that a config and the weights beside it disagree, and which of them is believed."""
    warnings.warn(
        f"{CONFIG} of {source} says that the head is tied to the embeddings "
        "(tie_word_embeddings), and another head is stored. The stored head is kept, and what is "
        "saved from here on says so.",
        stacklevel=3,
    )


def _differ(reader: TensorReader, first: str, second: str) -> bool:
    shape = reader.info[first].shape
    if shape != reader.info[second].shape:
        return True
    for start in range(0, shape[0], ROWS):
        parts = (reader.rows(name, start, start + ROWS).float() for name in (first, second))
        if not torch.equal(*parts):
            return True
    return False
