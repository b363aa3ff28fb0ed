"""2:4 zeros as tensors that NVIDIA's sparse tensor cores run faster than dense ones.

Axes: O output features, I input features.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.sparse import to_sparse_semi_structured

from lightning_prune.anatomy import Anatomy

__all__ = ["to_semi_structured"]

DTYPES = (torch.float16, torch.bfloat16)
ROWS, COLUMNS = 32, 64
"""The sizes of a matrix must be multiples of these: the stricter of torch's two backends."""
CAPABILITY = (8, 0)


def to_semi_structured(model: nn.Module) -> list[str]:
    """Turn the 2:4 weights of the blocks' Linears into torch's semi-structured tensors, in place.

    For inference: the tensors take no gradients, and a model that holds them is not saved; save
    it before. Linears that are not 2:4, or whose shape the kernels do not take, stay dense.

    Args:
        model: a causal LM of a known family, in float16 or bfloat16 on an NVIDIA GPU of compute
            capability 8.0 (Ampere) or later.

    Returns:
        The names of the Linears that were converted.

    Raises:
        ValueError: the device or dtype has no such kernels, or no Linear can be converted.
    """
    sites = [site for block in Anatomy(model).blocks for site in block.sites]
    _check_hardware(sites[0].module.weight)
    left = {site.name: why for site in sites if (why := why_dense(site.module.weight))}
    if len(left) == len(sites):
        name, why = next(iter(left.items()))
        raise ValueError(
            f"no Linear can be made semi-structured: {name} {why}. Prune with pattern='2:4' first."
        )
    for site in sites:
        if site.name not in left:
            sparse = to_sparse_semi_structured(site.module.weight.detach().contiguous())
            site.module.weight = nn.Parameter(sparse, requires_grad=False)
    return [site.name for site in sites if site.name not in left]


def why_dense(weight_OI: torch.Tensor) -> str | None:
    """Why a weight cannot be converted; None if it can."""
    if weight_OI.dtype not in DTYPES:
        return f"is {weight_OI.dtype}; the kernels take {' and '.join(map(str, DTYPES))}"
    outputs, inputs = weight_OI.shape
    if outputs % ROWS or inputs % COLUMNS:
        return f"is {outputs} x {inputs}; the kernels take multiples of {ROWS} x {COLUMNS}"
    kept = (weight_OI != 0).unflatten(1, (-1, 4)).sum(dim=-1)
    most = int(kept.max())
    return f"has up to {most} weights in a group of 4, not 2" if most > 2 else None


def _check_hardware(weight: torch.Tensor) -> None:
    if not torch.cuda.is_available():
        raise ValueError(
            "2:4 kernels need an NVIDIA GPU of compute capability 8.0 or later, and torch sees no "
            "GPU here. The zeros are kept in ordinary folders: convert where the model will run."
        )
    if not weight.is_cuda:
        raise ValueError(f"the model is on {weight.device}; move it first: model.to('cuda')")
    capability = torch.cuda.get_device_capability(weight.device)
    if capability < CAPABILITY:
        raise ValueError(
            f"2:4 kernels need compute capability 8.0 or later; "
            f"{torch.cuda.get_device_name(weight.device)} has {capability[0]}.{capability[1]}"
        )
    if weight.dtype not in DTYPES:
        raise ValueError(
            f"the model is in {weight.dtype}; 2:4 kernels take float16 and bfloat16: "
            "model.to(torch.bfloat16)"
        )
