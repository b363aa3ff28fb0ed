"""Dropout depends on the run's seed and the step alone: a resumed run draws the same."""

from __future__ import annotations

import torch

from lightning_prune import distributed

__all__ = ["common_seed", "seed_step"]


def common_seed() -> int:
    """A seed for all processes: what process 0's generator started from. Each has to call it."""
    return int(distributed.broadcast_(torch.tensor(torch.initial_seed() % 2**62)))


def seed_step(seed: int, epoch: int, batch: int) -> None:
    """Seed all devices of this process for one batch of one epoch."""
    torch.manual_seed(hash((seed, epoch, batch, distributed.rank())) % 2**63)
