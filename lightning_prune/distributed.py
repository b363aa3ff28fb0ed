"""The few collective operations that pruning needs; each does nothing in a single process."""

from __future__ import annotations

import torch
import torch.distributed as dist

__all__ = ["barrier", "broadcast_", "rank", "sum_", "world_size"]


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _running() else 1


def rank() -> int:
    """Index of this process."""
    return dist.get_rank() if _running() else 0


def sum_(tensor: torch.Tensor) -> torch.Tensor:
    """Add up a tensor over all processes, in place."""
    if world_size() > 1:
        moved = _to_backend(tensor)
        dist.all_reduce(moved)
        tensor.copy_(moved)
    return tensor


def broadcast_(tensor: torch.Tensor) -> torch.Tensor:
    """Give every process the tensor of process 0, in place."""
    if world_size() > 1:
        moved = _to_backend(tensor)
        dist.broadcast(moved, src=0)
        tensor.copy_(moved)
    return tensor


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def _running() -> bool:
    return dist.is_available() and dist.is_initialized()


def _to_backend(tensor: torch.Tensor) -> torch.Tensor:
    """NCCL moves only what is on the GPU; Gloo moves everything."""
    on_gpu = "nccl" in dist.get_backend()
    moved = tensor.cuda() if on_gpu and not tensor.is_cuda else tensor
    return moved.to(torch.uint8) if moved.dtype == torch.bool else moved.contiguous()
