"""Layers to repair: small random ones, and those of a trained Llama by the original codes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from safetensors.torch import load_file

from lightning_prune.repair import HessianFactor, obs_prune, saliency
from lightning_prune.repair.gram import scaled_gram
from lightning_prune.repair.support import solve_on_support
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
COLUMNS = {"50": 128, "2of4": 4, "70": 128}


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


def relative_error(
    weight_OI: torch.Tensor, new_OI: torch.Tensor, gram_II: torch.Tensor
) -> torch.Tensor:
    """||X(W - W')||² / ||XW||² in float64, a scalar, with XᵀX in any positive scale."""
    gram_II, weight_OI = gram_II.double(), weight_OI.double()
    change_OI = new_OI.double() - weight_OI
    lost = (change_OI @ gram_II).mul_(change_OI).sum()
    return lost / (weight_OI @ gram_II).mul_(weight_OI).sum()


def obs_update(
    weight_OI: torch.Tensor, keep_OI: torch.Tensor, factor: HessianFactor
) -> torch.Tensor:
    """What `obs_prune` makes of a mask that is given beforehand."""
    return obs_prune(weight_OI, factor, lambda weight_OB, diagonal_B, at: keep_OI[:, at])[0]


def refit(
    weight_OI: torch.Tensor,
    keep_OI: torch.Tensor,
    gram_II: torch.Tensor,
    target_OI: torch.Tensor | None = None,
    *,
    start_OI: torch.Tensor | None = None,
    damping: float = 0.01,
    steps: int = 100,
    tolerance: float = 1e-4,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The weights on `keep_OI` whose output is nearest to the dense layer's.

    Minimises ||X(W - W')||² + ridge ||W - W'||², ridge being `damping` times the mean diagonal.

    Args:
        weight_OI: the dense weights W.
        keep_OI: True where W' may differ from zero.
        gram_II: XᵀX of the inputs that the new weights will read.
        target_OI: W (CᵀX) where the dense layer read other inputs C than X; None: C = X.
        start_OI: where to begin; None: W itself, cut to the support.
        damping: share of the mean diagonal.
        steps: most steps to take.
        tolerance: of the residual, as a share of the target, at which a row is solved.
        dtype: to calculate in.
    """
    scaled = scaled_gram(gram_II, damping, dtype)
    weight_OI = weight_OI.to(dtype)
    start_OI = weight_OI if start_OI is None else start_OI.to(dtype)
    if target_OI is None:
        right_OI = (weight_OI * scaled.norm_I) @ scaled.unit_II
    else:
        right_OI = (target_OI.to(dtype) + scaled.ridge * weight_OI) / scaled.norm_I
    new_OI = solve_on_support(
        scaled.unit_II, right_OI, keep_OI, start_OI * scaled.norm_I, steps, tolerance
    )
    return new_OI.div_(scaled.norm_I)
