"""The few collective operations that pruning needs; each does nothing in a single process."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

__all__ = ["barrier", "broadcast_", "once", "rank", "sum_", "world_size"]

T = TypeVar("T")


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


def once(work: Callable[[], T]) -> T:
    """Do something in process 0 while the others wait; all have its result, or raise its error.

    Every process has to call it. An error in process 0 alone would leave the others waiting for
    one that is gone. The work may take longer than the process group's timeout.

    Args:
        work: called in process 0 only; its result is sent to the others by pickle.
    """
    if world_size() == 1:
        return work()
    outcome: list[Any] = [None, None, None]
    error: Exception | None = None
    if rank() == 0:
        try:
            outcome[1] = work()
        except Exception as caught:
            error = caught
            outcome[2] = _portable(caught)
        outcome[0] = _count(1)
    else:
        _wait_for_first()
    dist.broadcast_object_list(outcome, src=0)
    _SEEN[_store()] = outcome[0]
    if outcome[2] is not None:
        raise error or outcome[2]
    return outcome[1]


_SEEN: WeakKeyDictionary[dist.Store, int] = WeakKeyDictionary()
"""By store of a process group: how much work of process 0 this process has seen finished."""


def _wait_for_first() -> None:
    """Wait until process 0 has finished something more, however long it takes.

    A collective would fail when the group's timeout is over.
    """
    seen, begun = _SEEN.get(_store(), 0), time.monotonic()
    while _count(0) <= seen:
        time.sleep(min(max(1e-4, (time.monotonic() - begun) / 10), 0.1))


def _count(more: int) -> int:
    """How much work process 0 has finished in this group, when so much is added."""
    return int(_store().add("lightning_prune/finished", more))


def _store() -> dist.Store:
    return dist.distributed_c10d._get_default_store()


def _portable(error: Exception) -> Exception:
    """The error itself if it can be sent, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _running() -> bool:
    return dist.is_available() and dist.is_initialized()


def _to_backend(tensor: torch.Tensor) -> torch.Tensor:
    """NCCL moves only what is on the GPU; Gloo moves everything."""
    on_gpu = "nccl" in dist.get_backend()
    moved = tensor.cuda() if on_gpu and not tensor.is_cuda else tensor
    return moved.to(torch.uint8) if moved.dtype == torch.bool else moved.contiguous()
