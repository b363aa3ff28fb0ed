"""What several programs here need: a random model on the disk, and a process's peak memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from lightning_prune.checkpoints.writer import ShardWriter
from lightning_prune.machine import own_memory

__all__ = ["Peak", "peak_memory", "write_llama"]


def write_llama(folder: Path, dtype: str, **shape: Any) -> None:
    """Write a random Llama, of which one tensor is in memory at a time.

    Args:
        folder: is made.
        dtype: of its weights.
        shape: keys of its config.
    """
    config = LlamaConfig(**shape, dtype=dtype)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    folder.mkdir()
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    with ShardWriter(folder, "500MB") as writer:
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator) * 0.02 + ("norm" in name)
            writer.add(name, values.to(getattr(torch, dtype)))


@dataclass
class Peak:
    """Bytes that the process held at most beyond those that it held before."""

    bytes: int = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Context that watches the process's own memory (without pages of files); Linux."""
    peak, before, stopped = Peak(), own_memory(), threading.Event()

    def watch() -> None:
        while not stopped.wait(0.002):
            peak.bytes = max(peak.bytes, own_memory() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stopped.set()
        thread.join()
