"""Time, memory, operations and copies of a piece of work."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def synchronised(device: torch.device) -> float:
    """The time, when the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    size, times = (8192, 10) if device.type == "cuda" else (256, 3)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    left @ right
    start = synchronised(device)
    for _ in range(times):
        left @ right
    return 2 * size**3 * times / (synchronised(device) - start)


class Peak:
    """Peak memory of device and host inside the block, beyond what was held before."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"

    def __enter__(self) -> Peak:
        self._host = psutil.Process().memory_info().rss
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            self._device = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        usage = psutil.Process().memory_info()
        self.host = max(usage.rss - self._host, 0)
        reached = torch.cuda.max_memory_allocated(self.device) if self.cuda else 0
        self.on_device = reached - self._device if self.cuda else 0


class Operations(TorchDispatchMode):
    """Counts the floating-point operations of matrix products and attention inside the block."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        operator = func._overloadpacket
        if "scaled_dot_product" in operator.__name__:
            query_BHTD, key_BHTD = args[:2]  # torch's own count refuses heads that share keys
            products = 2 * query_BHTD.numel() * key_BHTD.shape[-2]
            self.total += products * (5 if "backward" in operator.__name__ else 2)
        elif operator in flop_registry:
            count = flop_registry[operator]
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def copied_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """Bytes that go between host and device while something is done."""
    if device.type != "cuda":
        work()
        return 0
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    names = ("Memcpy HtoD", "Memcpy DtoH")
    return sum(
        int(event["args"].get("bytes", 0))
        for event in events
        if str(event.get("name", "")).startswith(names)
    )
