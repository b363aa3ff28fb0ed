"""What a run is refused for before anything is pruned or written."""

from __future__ import annotations

import math
import pickle
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    DeviceStatsMonitor,
    GradientAccumulationScheduler,
    LearningRateMonitor,
)
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, DistributedSampler

from lightning_prune.models.lightning_checkpoint import plans_of
from lightning_prune.models.module import PrunableModule
from lightning_prune.models.optimization import check_schedule
from lightning_prune.plan import Plan

__all__ = ["check_checkpoint", "check_plan", "check_training", "checkpoint_of", "recorded_plans"]


def checkpoint_of(trainer: Trainer) -> str | Path | None:
    """The checkpoint that a Trainer is about to go on from; None: it starts anew.

    Lightning says so in `trainer.ckpt_path` only when every callback has been set up, and setting
    up is when pruning happens. Until then the path is an argument of the Trainer's own method that
    is running, and is read there.
    """
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_run" and frame.f_locals.get("self") is trainer:
            return frame.f_locals.get("ckpt_path")
        frame = frame.f_back  # type: ignore[assignment]
    return trainer.ckpt_path


def check_checkpoint(path: str | Path | None) -> None:
    """Refuse a path to go on from where there is no Lightning checkpoint.

    Args:
        path: of a file, or of a folder as a sharded run leaves; a URL is not looked at.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: what is there is no checkpoint.
    """
    if path is None or "://" in str(path):
        return
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no checkpoint {str(path)!r} to go on from")
    file = _file(Path(path))
    if not file.is_file() or not zipfile.is_zipfile(file):
        raise ValueError(
            f"{path} is no Lightning checkpoint, or a damaged one: give ckpt_path a file such as "
            "checkpoints/last.ckpt of the run that is to go on."
        )


def recorded_plans(path: str | Path | None) -> list[str] | None:
    """The fingerprints of the plans that a checkpoint was made with; None: they are not known."""
    if path is None or "://" in str(path):
        return None
    try:
        checkpoint = torch.load(_file(Path(path)), map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError):  # classes of one's own are in it
        return None
    return plans_of(checkpoint)


def check_plan(
    plan: Plan | None,
    saved: Plan | None,
    identity: Mapping[str, Any],
    recorded: Sequence[str],
    index: int,
    folder: Path,
) -> None:
    """Refuse to go on from a checkpoint that was made with another plan.

    Args:
        plan: the plan of this run, as far as it is known before anything is calibrated.
        saved: the plan in the run's folder.
        identity: what this run's decisions depend on.
        recorded: fingerprints of the plans that the checkpoint was made with.
        index: of this method's plan among them.
        folder: of the saved plan.

    Raises:
        ValueError: the checkpoint was made with another one, or what was asked for has changed.
    """
    expected = recorded[index] if index < len(recorded) else None
    if plan is not None and plan.fingerprint() == expected:
        return
    changed = "" if saved is None or plan is not None else _changed(saved, identity)
    if plan is None and (saved is None or saved.fingerprint() != expected or not changed):
        return  # it may be the same when it is made
    there = "no plan" if expected is None else f"the pruning plan {expected[:8]}"
    here = f"this run has {plan.fingerprint()[:8]}" if plan is not None else f"now {changed}"
    raise ValueError(
        f"the checkpoint was made with {there}, and {here}. Go on with the model, methods, "
        f"settings and calibration text that it was made with, or give the method that run's plan "
        f"(plan={str(folder)!r}); or start without the checkpoint, in a folder of its own."
    )


def check_training(trainer: Trainer, module: PrunableModule) -> None:
    """Refuse what Lightning, or the optimizer, says when training starts: all is pruned by then.

    Raises:
        ValueError: limit_train_batches or limit_val_batches (overfit_batches sets both) is less
            than one batch, val_check_interval is more than an epoch or nothing, no batch makes a
            step, gradients are clipped below 0, the learning rate is to fall to an end that there
            is not, or a callback of Lightning's lacks what it works with.
    """
    _check_numbers(trainer)
    _check_callbacks(trainer, module)
    fit = trainer.fit_loop
    endless = trainer.max_steps == -1 and trainer.max_epochs == -1
    if trainer.limit_train_batches and endless:
        check_schedule(module.schedule, math.inf)
    trained = _batches(fit._data_source, "train", trainer)
    validated = _batches(fit.epoch_loop.val_loop._data_source, "val", trainer)
    every = trainer.val_check_interval
    if not isinstance(every, int) or trainer.check_val_every_n_epoch is None:
        return
    if trained and validated != 0 and every > trained:
        raise ValueError(
            f"trainer.val_check_interval={every} is more than the {trained} batches of an epoch. "
            "Make it smaller, or a fraction of an epoch such as 0.5; with "
            "check_val_every_n_epoch=null it counts batches across epochs."
        )


def _check_numbers(trainer: Trainer) -> None:
    """Lightning divides by some of these, and takes a negative norm as one that turns gradients."""
    above = {"accumulate_grad_batches": "a step takes one batch at least"}
    if trainer.limit_val_batches:
        without = "to train without validation, set trainer.limit_val_batches=0"
        above |= {"val_check_interval": without, "check_val_every_n_epoch": without}
    for name, why in above.items():
        value = getattr(trainer, name)
        if isinstance(value, (int, float)) and not value > 0:
            raise ValueError(f"trainer.{name}={value}; {why}")
    clip = trainer.gradient_clip_val
    if clip is not None and not clip >= 0:
        raise ValueError(f"trainer.gradient_clip_val={clip}; 0 (nothing is clipped) or more")


def _check_callbacks(trainer: Trainer, module: PrunableModule) -> None:
    """Refuse callbacks of Lightning's that it would refuse itself when training starts."""
    trains = bool(trainer.limit_train_batches)  # `prune` does not
    logging = (DeviceStatsMonitor, LearningRateMonitor) if trains else DeviceStatsMonitor
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, logging) and not trainer.loggers:
            raise ValueError(
                f"{name} writes to a logger, and trainer.logger is off. Give the trainer a logger, "
                "such as CSVLogger, or leave the callback out."
            )
        if isinstance(callback, BackboneFinetuning) and not hasattr(module, "backbone"):
            raise ValueError(
                f"{name} freezes the module's `backbone`, and {type(module).__name__} has none. "
                "Leave the callback out; with an adapter, the model itself is frozen."
            )
        each = trainer.accumulate_grad_batches
        if isinstance(callback, GradientAccumulationScheduler) and each != 1 and trains:
            raise ValueError(
                f"{name} and trainer.accumulate_grad_batches={each} both say how many batches make "
                "a step. Leave one of them out."
            )


def _batches(source: Any, stage: str, trainer: Trainer) -> int | None:
    """How many batches an epoch of this process takes; None: that is not known beforehand.

    Args:
        source: Lightning's, of the loader.
        stage: "train" or "val".
        trainer: says how many of them it takes.
    """
    limit: int | float = getattr(trainer, f"limit_{stage}_batches")
    if limit == 0:
        return 0
    with isolate_rng():
        loader = source.dataloader() if source.is_defined() else None
    if not isinstance(loader, DataLoader):
        return None
    try:
        count = len(loader)
    except TypeError:  # a stream
        return None
    if not isinstance(loader.sampler, DistributedSampler):  # Lightning is going to share it out
        count = math.ceil(count / trainer.world_size)
    if isinstance(limit, int):
        return min(count, limit)
    if count and int(count * limit) == 0:
        raise ValueError(
            f"trainer.{_limiting(stage, trainer)}={limit} of {count} batches is less than one. Ask "
            "for a larger share, or for a number of batches, such as 1."
        )
    return int(count * limit)


def _limiting(stage: str, trainer: Trainer) -> str:
    """The setting that limits an epoch."""
    return "overfit_batches" if getattr(trainer, "overfit_batches", 0) else f"limit_{stage}_batches"


def _changed(saved: Plan, identity: Mapping[str, Any]) -> str:
    """What of the identity of a saved plan is another one now, in words."""
    before = saved.provenance.get("identity", {})
    old, new = before.get("arguments", {}), identity["arguments"]
    words = [
        f"{name}={new.get(name)} is asked for in place of {old.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    others = {"method": "the method", "model": "the model", "calibration": "the calibration text"}
    words += [
        f"{label} is another one"
        for key, label in others.items()
        if before.get(key) != identity[key]
    ]
    return ", ".join(words)


def _file(path: Path) -> Path:
    """The file of a checkpoint that says what was done; a sharded one is a folder."""
    return path / "meta.pt" if path.is_dir() else path
