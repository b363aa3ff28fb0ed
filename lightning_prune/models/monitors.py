"""Callbacks that stop a run, or keep or name its best weights, by something that is logged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
)

from lightning_prune.checks import meant

__all__ = ["check_monitors"]

COUNTERS = ("epoch", "step")
"""What a ModelCheckpoint knows though nobody logs it."""
KNOWN_PACKAGES = ("lightning", "lightning_prune")
"""Whose callbacks log nothing that can be monitored, the learning rates apart."""


def check_monitors(trainer: Trainer, logged: Sequence[str], module: object) -> None:
    """Refuse a metric that nothing logs, before hours of training end in Lightning's own error.

    Callbacks of the user's own may log what the module does not, and so may a module of theirs that
    leaves `logged` as it was: no name is refused then. A run may also end before its first
    validation. What was trained is merged and saved then, so early stopping warns in place of
    raising.

    Args:
        trainer: whose callbacks are looked at.
        logged: names that the module logs.
        module: it.

    Raises:
        ValueError: a callback monitors something else, or names its files by it.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    known = all(_package(type(callback)) in KNOWN_PACKAGES for callback in callbacks)
    own = any(isinstance(callback, LambdaCallback) for callback in callbacks)
    closed = known and not own and _says_what_it_logs(type(module))
    rates = any(isinstance(callback, LearningRateMonitor) for callback in callbacks)
    for callback in callbacks:
        for how, name in _named(callback):
            if closed and name not in logged and not (rates and name.startswith("lr-")):
                raise ValueError(
                    f"{type(callback).__name__} {how} {name!r}, which nothing logs."
                    f"{meant(name, logged)} Logged are {', '.join(logged)}."
                )
        if isinstance(callback, EarlyStopping):
            callback.strict = False


def _says_what_it_logs(cls: type) -> bool:
    """Whether a class is ours, or its author's `logged` stands in it."""
    said_in = next((base for base in cls.__mro__ if "logged" in vars(base)), cls)
    return _package(cls) in KNOWN_PACKAGES or _package(said_in) not in KNOWN_PACKAGES


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _named(callback: Callback) -> Iterator[tuple[str, str]]:
    """The metrics that a callback reads, each with what it does by it."""
    counters = COUNTERS if isinstance(callback, ModelCheckpoint) else ()
    monitor = getattr(callback, "monitor", None)
    if monitor is not None and monitor not in counters:
        yield "monitors", monitor
    if isinstance(callback, ModelCheckpoint):
        for name in re.findall(r"\{(.*?)[:}]", callback.filename or ""):  # Lightning writes a 0
            if name not in counters:
                yield "names its files by", name
