"""A training that diverges ends, in one line, before anything is saved of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning.pytorch import LightningModule
from torch.distributed.tensor import DTensor

__all__ = ["check_step", "check_trained"]


def check_step(module: LightningModule, loss: torch.Tensor) -> None:
    """Refuse to take a step along a loss or gradients that are not finite.

    Gradients that a GradScaler has scaled may overflow: it leaves such steps out.

    Args:
        module: with gradients.
        loss: of the last batch.

    Raises:
        ValueError: the loss, or a gradient, is NaN or infinite.
    """
    scaled = getattr(module.trainer.precision_plugin, "scaler", None) is not None
    gradients = [p.grad for p in module.parameters() if p.grad is not None and not scaled]
    if bool(loss.isfinite()) and not _overflows(gradients):
        return
    what = "a gradient" if bool(loss.isfinite()) else f"the loss, {float(loss)},"
    step = module.trainer.global_step + 1
    raise ValueError(f"training diverged at step {step}: {what} is not finite. {_advice(module)}")


def check_trained(module: LightningModule) -> None:
    """Refuse what a training has left, if it is not finite.

    Raises:
        ValueError: a weight that was trained is NaN or infinite.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if _overflows(trained.values()):
        wrong = next(name for name, p in trained.items() if _overflows([p]))
        raise ValueError(
            f"training diverged: {wrong} is not finite after the last step. {_advice(module)}"
        )


def _advice(module: LightningModule) -> str:
    """What to change in the next try, in a sentence."""
    rate = getattr(module, "learning_rate", None)
    words = "Lower the learning rate." if rate is None else f"Lower learning_rate={rate:g}."
    if any(p.dtype == torch.float16 for p in module.parameters()):
        words += " float16 overflows early: take dtype=bfloat16 with precision=bf16-true."
    return words


@torch.no_grad()
def _overflows(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether one of the tensors has a number that is not finite; of shards, this process's own."""
    local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
    if not local:
        return False
    # The largest magnitude is NaN or infinite where one number is; one answer for all tensors.
    largest = torch._foreach_norm(local, float("inf"), dtype=torch.float32)
    return not bool(torch.stack([norm.to(largest[0].device) for norm in largest]).isfinite().all())
