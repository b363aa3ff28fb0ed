"""The SHA-256 of tensors, several at a time: hashing leaves Python's lock to others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["digests"]

AT_ONCE = 8
"""Tensors that are hashed at the same time; each may take a copy of itself on the CPU."""


def digests(tensors: Iterable[torch.Tensor]) -> list[str]:
    """A hash of the bits of each tensor, wherever it is; not of its shape or type."""
    with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool:
        return list(pool.map(_digest, tensors))


def _digest(tensor: torch.Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()
