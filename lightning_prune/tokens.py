"""Token ids: which of them count, what is to be predicted, and which of them a model knows.

Tokenizers are those of transformers; none is made here.

Axes: B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = [
    "IGNORED",
    "begin_tokens",
    "begun",
    "check_known",
    "checked_batch",
    "counted_tokens",
    "known_pad_token",
    "labels_of",
    "next_tokens",
    "within_vocabulary",
]

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


# --- tokenizers ---


def begin_tokens(tokenizer: Any, asked: bool | None = None) -> tuple[int, ...]:
    """The tokens that a window of text begins with; most often one or none.

    Args:
        tokenizer: of transformers.
        asked: None: those that the tokenizer puts in front of every text; True: those, or its begin
            token if it puts none there; False: none.

    Raises:
        ValueError: True, and the tokenizer has no begin token.
    """
    if asked is False:
        return ()
    text = "a"  # what stands before it was put there by the tokenizer
    plain = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    whole = tokenizer(text, verbose=False)["input_ids"]
    starts = range(len(whole) - len(plain) + 1)
    begin = whole[: next((i for i in starts if whole[i : i + len(plain)] == plain), 0)]
    if begin or asked is None:
        return tuple(begin)
    if tokenizer.bos_token_id is None:
        raise ValueError(
            f"begin_token=True, and the {type(tokenizer).__name__} at hand has no begin token "
            "(bos_token). Leave begin_token out: text then begins as the tokenizer begins it."
        )
    return (tokenizer.bos_token_id,)


def begun(begin: str | None) -> str:
    """What follows "windows of 512 tokens": ", each begun with <bos>", or nothing."""
    return f", each begun with {begin}" if begin else ""


def known_pad_token(tokenizer: Any, vocabulary: int | None = None) -> int:
    """A token that the model has, for places that are masked: the tokenizer's own if that is sure.

    A padding token that was added to a tokenizer need not have got an embedding.

    Args:
        tokenizer: of transformers.
        vocabulary: how many tokens the model has; None: not known, and only tokens that the
            tokenizer began with are sure.
    """
    pad = tokenizer.pad_token_id
    known = tokenizer.vocab_size if vocabulary is None else vocabulary
    return 0 if pad is None or pad >= known else pad


def check_known(ids: torch.Tensor, vocabulary: int, tokenizer: Any, name: str = "text") -> None:
    """Refuse tokens for which a model has no embedding.

    Args:
        ids: token ids, of any shape.
        vocabulary: how many tokens the model has.
        tokenizer: that made them.
        name: what a message calls the text.

    Raises:
        ValueError: there is one.
    """
    highest = int(ids.max()) if ids.numel() else 0
    if highest >= vocabulary:
        raise ValueError(
            f"the tokenizer has {len(tokenizer):,} tokens, the model {vocabulary:,}: the {name} "
            f"holds token {highest}, for which there is no embedding. Take the tokenizer that "
            "belongs to the model, or resize the model's embeddings and train the new ones."
        )


def within_vocabulary(
    batch: Mapping[str, torch.Tensor], vocabulary: int
) -> dict[str, torch.Tensor]:
    """A batch whose tokens a model knows; what is not known at padding becomes token 0.

    Raises:
        ValueError: a token that is not masked is not known.
    """
    ids_BT = batch["input_ids"]
    unknown_BT = (ids_BT < 0) | (ids_BT >= vocabulary)
    if not bool(unknown_BT.any()):
        return dict(batch)
    if "attention_mask" in batch:
        seen_BT = unknown_BT & (batch["attention_mask"] != 0)
    else:
        seen_BT = unknown_BT
    if bool(seen_BT.any()):
        raise ValueError(
            f"input_ids hold token {int(ids_BT[seen_BT][0])}, and the model has {vocabulary:,} "
            f"tokens (0 to {vocabulary - 1}): they were made by another model's tokenizer, or with "
            "a token that was added and has no embedding. Take the tokenizer that belongs to the "
            "model."
        )
    return {**batch, "input_ids": ids_BT.masked_fill(unknown_BT, 0)}
