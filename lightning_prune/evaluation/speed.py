"""How fast a model runs on the device at hand."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import nn

from lightning_prune.sweep import evaluating, on_device

__all__ = ["tokens_per_second"]

WARM_UP, RUNS = 3, 15


@torch.no_grad()
def tokens_per_second(
    model: nn.Module, batch: Mapping[str, torch.Tensor], device: torch.device
) -> float | None:
    """Tokens per second of a forward pass over one batch: the fastest of fifteen runs after three.

    The fastest, because other programs on the machine can only slow a run down.

    The whole model is on the device meanwhile; None if it does not fit there.
    """
    inputs = {k: batch[k].to(device) for k in ("input_ids", "attention_mask") if k in batch}
    seconds = []
    try:
        with evaluating(model), on_device([model], device):
            for _ in range(WARM_UP + RUNS):
                _synchronize(device)
                start = time.perf_counter()
                model(**inputs, use_cache=False)
                _synchronize(device)
                seconds.append(time.perf_counter() - start)
    except torch.cuda.OutOfMemoryError:
        return None
    return batch["input_ids"].numel() / min(seconds[WARM_UP:])


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
