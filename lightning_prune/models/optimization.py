"""The default optimizer and learning rate schedule."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["Schedule", "adamw", "by_step", "check_optimization"]

Schedule = Literal["constant", "linear", "cosine"]


def check_optimization(learning_rate: float, weight_decay: float, warmup_steps: int) -> None:
    """Refuse what no training can be done with.

    Raises:
        ValueError: one of them is negative, or the learning rate is not finite.
    """
    numbers = {
        "learning_rate": learning_rate, "weight_decay": weight_decay, "warmup_steps": warmup_steps
    }  # fmt: skip
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise ValueError(f"{name}={number}; it is 0 or more, and finite")


def check_schedule(schedule: Schedule, total_steps: float) -> None:
    """Refuse a learning rate that falls to the end of a training that has none.

    Raises:
        ValueError: the learning rate is to fall, but the number of steps is not finite.
    """
    if schedule != "constant" and not math.isfinite(total_steps):
        raise ValueError(
            f"the {schedule} schedule needs the number of training steps: set the trainer's "
            "max_steps or max_epochs, or use the constant schedule."
        )


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW over the trainable parameters; norms and biases (one axis) are not decayed."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        fused=all(p.is_cuda for p in trainable) or None,
    )


def by_step(
    optimizer: Optimizer, schedule: Schedule, warmup_steps: int, total_steps: float
) -> dict[str, Any]:
    """What Lightning takes: the optimizer, and its learning rate by the step.

    Linear warm-up, then the learning rate stays, or falls to 0 at `total_steps`.

    Raises:
        ValueError: the learning rate is to fall, but the number of steps is not finite.
    """
    check_schedule(schedule, total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if schedule == "constant":
            return 1.0
        done = min(1.0, (step - warmup_steps) / max(1.0, total_steps - warmup_steps))
        return 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2

    rate = {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": rate}
