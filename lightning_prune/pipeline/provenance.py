"""Where a plan comes from: the model, the method, the libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from copy import copy
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from lightning_prune.digests import fingerprint
from lightning_prune.methods.base import Method
from lightning_prune.version import __version__

__all__ = ["provenance", "work_of"]


def work_of(
    model: nn.Module, method: Method, batches: Iterable[Mapping[str, torch.Tensor]]
) -> dict[str, Any]:
    """What all that one call of `prune` decides depends on."""
    digest = hashlib.sha256()
    for batch in batches:
        for name, tensor in sorted(batch.items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return {
        "method": repr(method),
        "model": fingerprint(model),
        "calibration": digest.hexdigest(),
        "versions": _versions(),
    }


def provenance(model: nn.Module, method: Method) -> dict[str, Any]:
    """Model, method and library versions, as JSON can say them."""
    config = model.config
    return {
        "model": getattr(config, "_name_or_path", "") or type(model).__name__,
        "revision": getattr(config, "_commit_hash", None),
        "model_type": config.model_type,  # type: ignore[union-attr]
        "method": type(method).__name__,
        "call": _call(method),
        "arguments": {name: _plain(value) for name, value in method.arguments.items()},
        "versions": _versions(),
    }


@cache
def _versions() -> dict[str, str]:
    others = {name: version(name) for name in ("torch", "transformers", "lightning")}
    return {"lightning_prune": __version__, **others}


def _call(method: Method) -> str:
    """The method with what it was told other than its defaults, a plan's place left out."""
    bare = copy(method)
    if hasattr(bare, "plan"):
        bare.plan = None
    return repr(bare)


def _plain(value: Any) -> Any:
    """A value as JSON can say it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return repr(value)
