"""Batches of token ids: which tokens count, and what is to be predicted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune.tokens import IGNORED, checked_batch, counted_tokens, labels_of, next_tokens
from tests.sweep.helpers import padded, tokens_of
from tests.tiny import tiny_batch


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (tiny_batch(), "a batch is a dict with input_ids.*got Tensor"),
        ([tiny_batch()], "a batch is a dict with input_ids.*got list"),
        ({"ids": tiny_batch()}, r"a batch is a dict with input_ids.*with \['ids'\]"),
        ({"input_ids": [[1, 2]]}, "a batch is a dict with input_ids, a tensor"),
        ({"input_ids": tiny_batch()[0]}, r"must be of shape \(B, T\).*got \(12,\)"),
        ({"input_ids": tiny_batch()[:0]}, r"must be of shape \(B, T\).*got \(0, 12\)"),
        ({"input_ids": tiny_batch()[:, :0]}, r"must be of shape \(B, T\).*got \(2, 0\)"),
    ],
)
def test_what_is_no_batch_is_refused(batch: Any, message: str) -> None:
    """A message about the batch, not from deep inside a model."""
    with pytest.raises(ValueError, match=message):
        checked_batch(batch)


def test_a_batch_stays_the_callers() -> None:
    """What comes back is a dict of its own, with the same tensors."""
    batch = padded("left")
    found = checked_batch(batch)
    assert found is not batch
    assert all(found[name] is batch[name] for name in batch)


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32])
def test_neither_padding_nor_ignored_tokens_count(dtype: torch.dtype) -> None:
    """Whatever the type of the mask."""
    batch = padded("right")
    kept_BT = tokens_of(batch)
    batch["attention_mask"] = batch["attention_mask"].to(dtype)
    assert torch.equal(counted_tokens(batch), kept_BT)
    labels_BT = batch["input_ids"].masked_fill(torch.arange(14) < 2, IGNORED)
    assert torch.equal(
        counted_tokens(batch | {"labels": labels_BT}), kept_BT & (torch.arange(14) >= 2)
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_first_token_of_a_sequence_is_not_predicted_from_padding(side: str) -> None:
    """Neither padding nor what stands right behind it has a label."""
    batch = padded(side)
    labels_BT, kept_BT = labels_of(batch), tokens_of(batch)
    for b in range(3):
        for t in range(14):
            known = bool(kept_BT[b, t]) and (t == 0 or bool(kept_BT[b, t - 1]))
            expected = int(batch["input_ids"][b, t]) if known else IGNORED
            assert int(labels_BT[b, t]) == expected


def test_labels_are_the_callers_where_there_are_some() -> None:
    """Else the tokens themselves; neither is changed."""
    batch = padded("left")
    assert labels_of({"input_ids": batch["input_ids"]}) is batch["input_ids"]
    labels_BT = torch.full((3, 14), 7)
    before = {name: tensor.clone() for name, tensor in batch.items()}
    found_BT = labels_of(batch | {"labels": labels_BT})
    assert set(found_BT.unique().tolist()) == {7, IGNORED}
    assert (labels_BT == 7).all()
    torch.testing.assert_close(batch, before, rtol=0, atol=0)


def test_each_token_says_the_next_one() -> None:
    """And the last one nothing."""
    ids_BT = tiny_batch()
    target_BT = next_tokens({"input_ids": ids_BT})
    assert torch.equal(target_BT[:, :-1], ids_BT[:, 1:])
    assert (target_BT[:, -1] == IGNORED).all()
