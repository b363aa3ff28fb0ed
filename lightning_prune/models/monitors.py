"""Callbacks that stop a run, or keep its best weights, by something that the module logs."""

from __future__ import annotations

from collections.abc import Collection

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

__all__ = ["check_monitors"]


def check_monitors(trainer: Trainer, logged: Collection[str], more: Collection[str] = ()) -> None:
    """Refuse a monitor that nothing logs, before hours of training end in Lightning's own error.

    A run may also end before its first validation. What was trained is merged and saved then, so
    early stopping warns in place of raising.

    Args:
        trainer: whose callbacks are looked at.
        logged: names that the module logs.
        more: names that it may log, and that the message leaves out.

    Raises:
        ValueError: a callback monitors something else.
    """
    known = {*logged, *more}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor.startswith(("val_", "train_")) and monitor not in known:
            raise ValueError(
                f"{type(callback).__name__} monitors {monitor!r}, which nothing logs. Logged are "
                f"{', '.join(logged)}."
            )
        if isinstance(callback, EarlyStopping):
            callback.strict = False
