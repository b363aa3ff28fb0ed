"""`lightning-prune plan_resources`: memory, disk, passes, network, time and files, beforehand."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer

from lightning_prune.callbacks.base import methods_of
from lightning_prune.checkpoints.writer import parse_size
from lightning_prune.commands.arguments import writable_folder
from lightning_prune.commands.prune import NO_METHOD
from lightning_prune.models.module import PrunableModule
from lightning_prune.report.files import show
from lightning_prune.report.resources import resources_document
from lightning_prune.studies.resources import plan_resources as resources_of

__all__ = ["plan_resources"]


def plan_resources(
    trainer: Trainer,
    model: PrunableModule,
    datamodule: LightningDataModule,
    device: str | None = None,
    devices: int | None = None,
    nodes: int | None = None,
    device_memory: str | None = None,
    host_memory: str | None = None,
    operations: float | None = None,
    read: float | None = None,
    out: str | None = None,
) -> None:
    """Say what pruning will take, before it is begun.

    From the configuration, the model's config and the heads of its files: no weights are read, no
    text, and nothing is calibrated. The devices need not be there.

    Args:
        trainer: has pruning methods among its callbacks.
        model: the model; a folder with a config.json is enough.
        datamodule: says how much calibration text there is.
        device: where blocks run, "cpu" or "cuda"; None: as the trainer says.
        devices: of each node; None: as the trainer says.
        nodes: how many; None: as the trainer says.
        device_memory: of a device, such as 80GB; None: what is free on it, where it is there.
        host_memory: of a node, such as 512GB; None: what is free on this machine.
        operations: multiplications and additions a second of a device, such as 4e14; None:
            measured, where it is there.
        read: bytes read a second from the model's files, such as 2e9; None: measured.
        out: a folder for resources.json and resources.md.

    Raises:
        ValueError: no pruning method is among the callbacks, or what `plan_resources` refuses.
    """
    methods = methods_of(trainer)
    if not methods:
        raise ValueError(f"there is nothing to plan for: {NO_METHOD}")
    folder = writable_folder(out)
    asked: dict[str, Any] = getattr(trainer, "asked", {})
    where = _device(asked.get("accelerator")) if device is None else device
    here = torch.cuda.device_count() if where.startswith("cuda") else 1
    each = _count(asked.get("devices"), max(here, 1)) if devices is None else devices
    count = _count(asked.get("num_nodes"), 1) if nodes is None else nodes
    resources = resources_of(
        model,
        datamodule,
        methods,
        device=where,
        processes=each * count,
        nodes=count,
        device_memory=_size("device_memory", device_memory),
        host_memory=_size("host_memory", host_memory),
        operations=operations,
        read=read,
    )
    show(resources_document(resources), folder)


def _device(accelerator: Any) -> str:
    if accelerator in ("gpu", "cuda"):
        return "cuda"
    return "cuda" if accelerator in (None, "auto") and torch.cuda.is_available() else "cpu"


def _count(asked: Any, here: int) -> int:
    """How many devices, or nodes, a configuration asks for: a number, a list, or as many as are."""
    if isinstance(asked, (list, tuple)):
        return len(asked)
    number = int(asked) if str(asked).isdigit() else 0
    return number or here


def _size(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not allowed: give a size such as 80GB") from None
