"""Batches of token ids: which tokens count, and what is to be predicted.

Axes: B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["IGNORED", "checked_batch", "counted_tokens", "labels_of", "next_tokens"]

IGNORED = -100
"""Label of a token that is not to be predicted."""


def checked_batch(batch: Any) -> dict[str, torch.Tensor]:
    """A batch of token ids as a dict.

    Raises:
        ValueError: it is none that a language model can read.
    """
    ids_BT = batch.get("input_ids") if isinstance(batch, Mapping) else batch
    if not isinstance(batch, Mapping) or not isinstance(ids_BT, torch.Tensor):
        raise ValueError(
            "a batch is a dict with input_ids, a tensor of shape (B, T), and optional "
            f"attention_mask; got {type(batch).__name__}"
            + (f" with {sorted(batch)}" if isinstance(batch, Mapping) else "")
        )
    if ids_BT.ndim != 2 or ids_BT.numel() == 0:
        raise ValueError(f"input_ids must be of shape (B, T), B, T > 0; got {tuple(ids_BT.shape)}")
    return dict(batch)


def counted_tokens(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which tokens count in statistics, (B, T): not padding, and not ignored by the labels."""
    keep_BT = torch.ones_like(batch["input_ids"], dtype=torch.bool)
    if "attention_mask" in batch:
        keep_BT &= batch["attention_mask"] != 0
    if "labels" in batch:
        keep_BT &= batch["labels"] != IGNORED
    return keep_BT


def labels_of(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A batch's labels, or its tokens if it has none; `IGNORED` at padding and right behind it.

    What a model says at a padded place is no prediction of the first token of a sequence.
    """
    labels_BT = batch.get("labels", batch["input_ids"])
    if "attention_mask" in batch:
        padding_BT = batch["attention_mask"] == 0
        behind_BT = nn.functional.pad(padding_BT[:, :-1], (1, 0))
        labels_BT = labels_BT.masked_fill(padding_BT | behind_BT, IGNORED)
    return labels_BT


def next_tokens(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What the logits at each token are to say, (B, T); `IGNORED` where nothing is asked."""
    return nn.functional.pad(labels_of(batch)[:, 1:], (0, 1), value=IGNORED)
