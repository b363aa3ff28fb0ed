"""Callbacks that stop a run, or keep its best weights, by something that a CausalLM logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import EarlyStopping

if TYPE_CHECKING:
    from lightning_prune.models.causal_lm import CausalLM

__all__ = ["LOGGED", "check_monitors"]

LOGGED = ("val_perplexity", "val_loss", "train_loss")
"""What can be monitored."""


def check_monitors(module: CausalLM) -> None:
    """Refuse a monitor that nothing logs, before hours of training end in Lightning's own error.

    A run may also end before its first validation. What was trained is merged and saved then, so
    early stopping warns in place of raising.

    Raises:
        ValueError: a callback monitors something else.
    """
    if module._trainer is None:
        return
    known = (*LOGGED, "train_cross_entropy", "train_kl", "train_hidden")
    for callback in module.trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor.startswith(("val_", "train_")) and monitor not in known:
            raise ValueError(
                f"{type(callback).__name__} monitors {monitor!r}, which nothing logs. Logged are "
                f"{', '.join(LOGGED)}."
            )
        if isinstance(callback, EarlyStopping):
            callback.strict = False
