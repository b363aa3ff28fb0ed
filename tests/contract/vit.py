"""A family whose models read images, by a table from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lightning_prune import register_family
from lightning_prune.anatomy import FAMILIES, Family, ImageTask, SiteTable
from tests.sweep.helpers import split
from tests.tiny import tiny_images

VIT = Family(
    model_types=("vit",),
    blocks="vit.layers",
    sites=(
        SiteTable("attention.q_proj", reads="attention_input", rows=("query",)),
        SiteTable("attention.k_proj", reads="attention_input", rows=("key",)),
        SiteTable("attention.v_proj", reads="attention_input", rows=("value",)),
        SiteTable("attention.o_proj", reads="attention_output", columns="query", adds=True),
        SiteTable("mlp.fc1", reads="mlp_input", rows=("neuron",)),
        SiteTable("mlp.fc2", reads="mlp_inner", columns="neuron", adds=True),
    ),
    task=ImageTask("classifier"),
    body="vit",
    attention="attention",
    kv_heads_key=None,
    attributes={"attention.num_attention_heads": "heads"},
)
IMAGES = tiny_images()


@contextmanager
def registered() -> Iterator[None]:
    """Context in which the table is there in place of the package's own of that type.

    Transformers goes on knowing its pruned models.
    """
    before = list(FAMILIES)
    FAMILIES[:] = [family for family in FAMILIES if "vit" not in family.model_types]
    register_family(VIT)
    try:
        yield
    finally:
        FAMILIES[:] = before


def batches(size: int = 3) -> list[dict[str, torch.Tensor]]:
    return split(IMAGES, size)
