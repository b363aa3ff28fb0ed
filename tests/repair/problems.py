"""Layers to repair: small random ones, and those of a trained Llama by the original codes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from safetensors.torch import load_file

from lightning_prune.repair import saliency
from lightning_prune.selection import Pattern, keep_n_of_m, keep_per_matrix
from tests.shared import shared_path

LINEARS = (
    "model.layers.2.mlp.down_proj.weight",
    "model.layers.2.mlp.up_proj.weight",
    "model.layers.2.self_attn.q_proj.weight",
)
SETTINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "50": lambda score_OI: keep_per_matrix(score_OI, 0.5),
    "2of4": lambda score_OI: keep_n_of_m(score_OI, Pattern(2, 4)),
    "70": lambda score_OI: keep_per_matrix(score_OI, 0.7),
}
BLOCKS = {"50": 128, "2of4": 4, "70": 128}


def random_layer(outputs: int, inputs: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and correlated inputs X (T, I), both float64."""
    generator = torch.Generator().manual_seed(seed)
    weight_OI = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    mix_II = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    input_TI = torch.randn(4 * inputs + 8, inputs, generator=generator, dtype=torch.float64)
    return weight_OI, input_TI @ (mix_II / inputs**0.5 + torch.eye(inputs, dtype=torch.float64))


def by_saliency(
    keep: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor, torch.Tensor, slice], torch.Tensor]:
    """SparseGPT's way of choosing, with a rule."""
    return lambda weight_OB, diagonal_B, columns: keep(saliency(weight_OB, diagonal_B))


@cache
def golden(name: str) -> dict[str, torch.Tensor]:
    return load_file(shared_path(f"golden/{name}.safetensors"))


@cache
def stories() -> dict[str, torch.Tensor]:
    return load_file(shared_path("models/stories260k/model.safetensors"))
