"""The SHA-256 of tensors and models, several at a time: hashing leaves Python's lock to others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

__all__ = ["digests", "fingerprint"]

AT_ONCE = 8
"""Tensors that are hashed at the same time; each may take a copy of itself on the CPU."""


def digests(tensors: Iterable[torch.Tensor]) -> list[str]:
    """A hash of the bits of each tensor, wherever it is; not of its shape or type."""
    with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool:
        return list(pool.map(_digest, tensors))


def fingerprint(model: nn.Module) -> str:
    """A hash of all of a model's tensors: names, shapes, types and values."""
    digest, state = hashlib.sha256(), model.state_dict()
    for (name, tensor), values in zip(state.items(), digests(state.values()), strict=True):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {values}".encode())
    return digest.hexdigest()


def _digest(tensor: torch.Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()
