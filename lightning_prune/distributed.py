"""The few collective operations that pruning needs; each does nothing in a single process."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

__all__ = [
    "barrier",
    "broadcast_",
    "given",
    "once",
    "rank",
    "shared_out",
    "sum_",
    "together",
    "world_size",
]

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


def broadcast_(tensor: torch.Tensor, source: int = 0) -> torch.Tensor:
    """Give every process the tensor of one of them, in place."""
    if world_size() > 1:
        moved = _to_backend(tensor)
        dist.broadcast(moved, src=source)
        tensor.copy_(moved)
    return tensor


def given(value: T, source: int = 0) -> T:
    """The value that one process has, by pickle: for what is small."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=source)
    return values[0]


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def shared_out(costs: Sequence[float]) -> list[int]:
    """Which process does each piece of some work, so that all are done at about the same time.

    The dearest piece comes first, and each goes to the process that has least to do so far.
    """
    load = [0.0] * world_size()
    owners = [0] * len(costs)
    for piece in sorted(range(len(costs)), key=lambda piece: -costs[piece]):
        owners[piece] = load.index(min(load))
        load[owners[piece]] += costs[piece]
    return owners


def together(work: Callable[[], T]) -> T:
    """Do something in every process; if it fails in one, all raise the first one's error.

    Every process has to call it.

    Args:
        work: each process's own; it must not talk to the others.
    """
    if world_size() == 1:
        return work()
    error: Exception | None = None
    try:
        result = work()
    except Exception as caught:
        error = caught
    errors: list[Any] = [None] * world_size()
    dist.all_gather_object(errors, error and _portable(error))
    first = next((other for other in errors if other is not None), None)
    if first is not None:
        raise error or first
    return result


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
