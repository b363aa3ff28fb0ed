"""Hashes of tensors."""

from __future__ import annotations

import hashlib

import torch

from lightning_prune.digests import digests


def test_a_digest_is_that_of_the_bytes() -> None:
    """In their order, of any type and layout; more than are hashed at once."""
    whole = torch.arange(48.0).view(6, 8)
    tensors = [whole, whole.mT, whole[:, ::2], whole.bfloat16(), whole.bool(), whole[0, 0]] * 3
    expected = [
        hashlib.sha256(t.contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
        for t in tensors
    ]
    assert digests(iter(tensors)) == expected
    assert len(set(expected)) == 6
    assert digests([]) == []
