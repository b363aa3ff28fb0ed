"""FSDP2: the weights of every block are spread over the devices and gathered when it runs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

__all__ = ["data_mesh", "shard"]

_COMPUTE_DTYPE = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def data_mesh(mesh: DeviceMesh) -> DeviceMesh:
    """The data-parallel axis of the mesh that Lightning's ModelParallelStrategy makes.

    Raises:
        ValueError: the mesh also asks for tensor parallelism.
    """
    tensor_parallel = mesh["tensor_parallel"].size()
    if tensor_parallel > 1:
        raise ValueError(
            f"the strategy asks for tensor parallelism over {tensor_parallel} devices, and "
            "CausalLM has none. Set ModelParallelStrategy's data_parallel_size to the number of "
            "all devices, and tensor_parallel_size to 1."
        )
    return mesh["data_parallel"]


def shard(model: nn.Module, blocks: Iterable[nn.Module], mesh: DeviceMesh, precision: str) -> None:
    """Shard a model in place: each block, then what lies outside the blocks.

    Args:
        model: the module that is called in training.
        blocks: its decoder blocks.
        mesh: as given by `data_mesh`.
        precision: the trainer's; with a "-mixed" one, blocks compute in it and gradients are
            reduced in fp32.
    """
    dtype = _COMPUTE_DTYPE.get(precision)
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
