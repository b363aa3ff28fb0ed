"""Every kind of evidence that a sweep collects, with what its results come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lightning_prune.allocation.sensitivity import HalfMasked
from lightning_prune.anatomy import Block
from lightning_prune.evidence import (
    CrossGram,
    Evidence,
    Feature,
    Gradients,
    Gram,
    InputMoments,
    InputNorm,
    Propagate,
    Removal,
)
from lightning_prune.evidence.influence import Angular, Cosine
from lightning_prune.sweep import HiddenStates, collect

KINDS: dict[str, tuple[Evidence, Propagate]] = {
    "norms of the dense model": (InputNorm(), "none"),
    "moments by block": (InputMoments(), "block"),
    "products by layer": (Gram(), "layer"),
    "both models": (CrossGram(), "layer"),
    "gradients": (Gradients(), "none"),
    "squared gradients": (Gradients(squares=True), "none"),
    "gradients of features": (Gradients(objective=Feature(modules="all")), "none"),
    "influence": (Cosine(), "none"),
    "influence of two": (Angular(span=2), "none"),
    "influence of a part": (Cosine(part="mlp"), "none"),
    "removal": (Removal(windows=2), "none"),
    "removal of a part": (Removal(part="attention", windows=0), "none"),
    "trials": (HalfMasked(windows=2), "none"),
}


def collected(
    states: HiddenStates, kind: str, blocks: Sequence[Block] | None = None
) -> list[tuple[int, dict[str, Any]]]:
    """All that a sweep yields, in numbers that stay: block and results."""
    evidence, propagate = KINDS[kind]
    steps = collect(states, evidence, blocks or states.anatomy.blocks, propagate)
    return [
        (block.index, {name: numbers(value) for name, value in results.items()})
        for block, results in steps
    ]


def numbers(result: Any) -> Any:
    """What a result says, as tensors."""
    if isinstance(result, Gradients):
        return [result.first_OI, *([result.square_OI] if result.squares else [])]
    if isinstance(result, tuple):
        return [part for part in result if part is not None]
    return torch.as_tensor(result)
