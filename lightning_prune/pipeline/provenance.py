"""Where a plan comes from: the model, the method, the libraries."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from lightning_prune.methods.base import Method
from lightning_prune.version import __version__

__all__ = ["fingerprint", "provenance"]


def fingerprint(model: nn.Module) -> str:
    """A hash of all of a model's tensors: names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def provenance(model: nn.Module, method: Method) -> dict[str, Any]:
    """Model, method and library versions, as JSON can say them."""
    config = model.config
    return {
        "model": getattr(config, "_name_or_path", "") or type(model).__name__,
        "revision": getattr(config, "_commit_hash", None),
        "model_type": config.model_type,  # type: ignore[union-attr]
        "method": type(method).__name__,
        "arguments": {name: _plain(value) for name, value in method.arguments.items()},
        "versions": {
            "lightning_prune": __version__,
            **{name: version(name) for name in ("torch", "transformers", "lightning")},
        },
    }


def _plain(value: Any) -> Any:
    """A value as JSON can say it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return repr(value)
