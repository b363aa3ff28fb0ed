"""Random image classifiers of every family, small enough for any test.

What imports this is skipped where the extra `vision` is not installed, or of older versions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from tests.tiny import _randomised

__all__ = ["FAMILIES", "STAGED", "image_batches", "image_model"]

pytest.importorskip("PIL", reason="images take the extra vision")
pytest.importorskip("transformers", minversion="5.23")

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
    "num_labels": 7,
}
_SMALL = _SIZES | {"intermediate_size": 24}
_SWIN: dict[str, Any] = {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
_CONVNEXT: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [2, 1], "num_stages": 2}

_MADE: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: ViTForImageClassification(ViTConfig(**_SMALL)),
    "deit": lambda: DeiTForImageClassification(DeiTConfig(**_SMALL)),
    "dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**_SIZES, mlp_ratio=1)),
    "beit": lambda: BeitForImageClassification(
        BeitConfig(**_SMALL, use_relative_position_bias=True)
    ),
    "swin": lambda: SwinForImageClassification(
        SwinConfig(**_SWIN, image_size=16, patch_size=2, mlp_ratio=2.0, num_labels=7)
    ),
    "convnext": lambda: ConvNextForImageClassification(
        ConvNextConfig(**_CONVNEXT, image_size=16, patch_size=2, num_labels=7)
    ),
}
FAMILIES = sorted(_MADE)
STAGED = ("convnext", "swin")
"""Their blocks stand in stages of different widths."""


def image_model(family: str, seed: int = 0) -> nn.Module:
    """A random classifier of images of 16 x 16 in 7 classes."""
    return _randomised(_MADE[family](), seed)


def image_batches(count: int = 24, size: int = 8, seed: int = 1) -> list[dict[str, torch.Tensor]]:
    """Random images of 16 x 16 with random classes, in batches."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, 16, 16, generator=generator)
    labels = torch.randint(0, 7, (count,), generator=generator)
    return [
        {"pixel_values": pixels[i : i + size], "labels": labels[i : i + size]}
        for i in range(0, count, size)
    ]
