"""What memory this machine has left for this process."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import torch

__all__ = ["free_memory", "free_on_device", "give_back", "own_memory", "read_ahead"]

CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes of host memory that this process could still take: no more than that in any case.

    What the system can take back counts as free, and so does swap space. In a container its limit
    counts, if it is lower.
    """
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    limit = _limit(CGROUP)
    return int(free if limit is None else min(free, limit))


def free_on_device(device: torch.device) -> int:
    """Bytes that are free where blocks run."""
    if device.type != "cuda":
        return free_memory()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + unused)


def own_memory() -> int:
    """Bytes that this process holds itself, without pages of files; elsewhere than Linux, with."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return int(psutil.Process().memory_info().rss)
    sizes = (line for line in lines if line.startswith(("RssAnon:", "VmSwap:")))
    return sum(1024 * int(line.split()[1]) for line in sizes)


def give_back() -> None:
    """Let the system have what was freed: glibc keeps it, in pieces, and grows with every block."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def read_ahead(tensors: Iterable[torch.Tensor]) -> None:
    """Let the system read files that tensors are mapped from, before they are looked at.

    It reads in the background; tensors in memory are passed over.
    """
    if sys.platform != "linux":
        return
    advise, page = ctypes.CDLL(None).madvise, mmap.PAGESIZE
    for tensor in tensors:
        if tensor.is_cpu and tensor.nbytes:
            first = tensor.data_ptr() // page * page
            length = tensor.data_ptr() + tensor.nbytes - first
            advise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_WILLNEED)


def _limit(cgroup: Path) -> int | None:
    """What a container's limit leaves, with its swap space; None: there is no limit to be read."""
    try:
        limit = (cgroup / "memory.max").read_text(encoding="utf-8").strip()
        if limit == "max":
            return None
        statistics = (cgroup / "memory.stat").read_text(encoding="utf-8").splitlines()
        held = {name: int(value) for name, value in (line.split() for line in statistics)}
        swap = (cgroup / "memory.swap.max").read_text(encoding="utf-8").strip()
        extra = psutil.swap_memory().free if swap == "max" else int(swap)
        return max(0, int(limit) - held["anon"]) + extra
    except (OSError, KeyError, ValueError):
        return None
