"""A pruning that is certain not to fit is refused before it is begun, with the setting that helps.

What is compared is less than what it will take: the block, the hidden states and the sums of the
evidence, which cannot be done without. What a batch takes on its way through a block is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch

from lightning_prune import distributed
from lightning_prune.anatomy import Anatomy
from lightning_prune.machine import free_memory, free_on_device, own_memory
from lightning_prune.methods.base import Method
from lightning_prune.pipeline.demand import Calibration, Demand, Setting
from lightning_prune.pipeline.forecast import forecast
from lightning_prune.report.resources import memory_text
from lightning_prune.sweep.placement import Placement
from lightning_prune.sweep.rehearsal import Shapes

__all__ = ["check_fits", "helpful", "smaller"]

CERTAIN = ("weights", "hidden states", "evidence")
"""What of a phase is certain to be there, however batches are run and blocks decided on."""

FAR = 1000
"""With so many times the block and the hidden states free, nothing is looked at any closer."""


def check_fits(
    placement: Placement, method: Method, batches: Sequence[Mapping[str, torch.Tensor]]
) -> None:
    """Refuse a pruning that takes more than is free, whatever happens.

    Args:
        placement: of the model that is loaded.
        method: checked against it.
        batches: of this process.

    Raises:
        ValueError: it does, in this process or another one; the message says what takes it, and
            which setting would make it fit.
    """
    refusal = _refusal(placement, method, batches)
    refused = int(distributed.sum_(torch.tensor(int(refusal is not None))))
    if refused:
        raise ValueError(refusal or "another process has too little memory, and says for what")


def _refusal(
    placement: Placement, method: Method, batches: Sequence[Mapping[str, torch.Tensor]]
) -> str | None:
    """What does not fit, in a line; None: it may fit."""
    device, free = placement.device, free_on_device(placement.device)
    setting = _setting(placement, method, batches, free)
    if setting is None:
        return None
    limits = {"device": free, "host": free if device.type == "cpu" else free_memory()}
    block = max(sum(p.nbytes for p in b.module.parameters()) for b in setting.anatomy.blocks)
    if FAR * (block + setting.hidden) < min(limits.values()):
        return None
    needed = _certain(setting)
    here = "CPU" if device.type == "cpu" else str(device)
    for place, parts in needed.items():
        size = sum(parts.values())
        if size > limits[place]:
            named = ", ".join(f"{name} {memory_text(part)}" for name, part in parts.items())
            where = here if place == "device" or here == "CPU" else "host"
            return (
                f"{type(method).__name__} takes at least {memory_text(size)} of the {where}'s "
                f"memory ({named}), and {memory_text(limits[place])} are free. "
                + _advice(setting, limits)
            )
    changed = 0 if setting.mapped or method.cuts else _changed(setting)
    if changed - own_memory() > limits["host"]:
        return (
            f"{type(method).__name__} changes {memory_text(changed)} of weights, which are then in "
            f"the host's memory, and {memory_text(limits['host'])} are free. Leave them in files: "
            "--model.placement checkpoint"
        )
    return None


def helpful(setting: Setting) -> Iterable[tuple[str, Setting]]:
    """Other settings, each with what it says in a configuration, the least costly first."""
    method, calibration = setting.method, setting.calibration
    if not setting.on_cpu and not method.offload:
        yield "offload: true", replace(setting, method=_with(method, offload=True))
    repair = method.effective_repair
    if getattr(repair, "trust", 0):
        alone = copy(repair)
        alone.trust = 0  # type: ignore[union-attr]
        yield (
            "repair: LeastSquares with trust 0",
            replace(setting, method=_with(method, repair=alone)),
        )
    if method.offload != "disk":
        yield 'offload: "disk"', replace(setting, method=_with(method, offload="disk"))
    if repair is not None:
        yield "repair: null", replace(setting, method=_with(method, repair=None))
    if getattr(method, "propagate", "block") == "layer" and method.solving is not None:
        other = _with(method, propagate="block")
        if not _runs_in_step(other):
            yield "propagate: block", replace(setting, method=other)
    for part in (2, 4, 8, 16, 32):
        if calibration.windows >= part:
            yield f"nsamples {calibration.windows // part}", smaller(setting, part)


def smaller(setting: Setting, part: int) -> Setting:
    """The same with so many times fewer calibration windows."""
    counted = setting.calibration.counted
    calibration = replace(
        setting.calibration,
        windows=max(1, setting.calibration.windows // part),
        counted=None if counted is None else counted // part,
    )
    return replace(setting, calibration=calibration)


def _certain(setting: Setting) -> dict[str, dict[str, int]]:
    """What is certain to be held on the device and on the host at once, by what it is."""
    demand: Demand = forecast(setting)
    largest: dict[str, dict[str, int]] = {"device": {}, "host": {}}
    for phase in demand.phases:
        for place, parts in (("device", phase.device), ("host", phase.host)):
            certain = {name: size for name, size in parts.items() if name in CERTAIN}
            if sum(certain.values()) > sum(largest[place].values()):
                largest[place] = certain
    return largest


def _changed(setting: Setting) -> int:
    """Bytes of weights on the CPU that get zeros; some of it may be the process's own already."""
    sites = (site for block in setting.method.blocks(setting.anatomy) for site in block.sites)
    return sum(site.module.weight.nbytes for site in sites if site.module.weight.is_cpu)


def _advice(setting: Setting, limits: Mapping[str, int]) -> str:
    words = []
    for name, other in helpful(setting):
        needed = _certain(other)
        if all(sum(parts.values()) <= limits[place] for place, parts in needed.items()):
            words.append(name)
        if len(words) == 2:
            break
    if not words:
        return "No single setting makes it fit: give fewer nsamples and a method without repair."
    return f"It could fit with {' or with '.join(words)}."


def _setting(
    placement: Placement,
    method: Method,
    batches: Sequence[Mapping[str, torch.Tensor]],
    free: int,
) -> Setting | None:
    """What is asked, as far as its size is known; None: it is not."""
    anatomy: Anatomy = placement.anatomy
    key = anatomy.task.windows_of
    tokens = [batch.get(key) for batch in batches if isinstance(batch, Mapping)]
    ids = [t for t in tokens if isinstance(t, torch.Tensor) and t.ndim == 2 and t.numel()]
    width = getattr(anatomy.model.config, "hidden_size", None)
    if not ids or not isinstance(width, int) or not anatomy.blocks:
        return None
    dtype = anatomy.blocks[0].sites[0].module.weight.dtype if anatomy.blocks[0].sites else None
    calibration = Calibration(
        windows=sum(len(t) for t in ids),
        length=max(t.shape[1] for t in ids),
        batch_size=max(len(t) for t in ids),
        counted=sum(t.numel() for t in ids),
    )
    hidden = torch.empty(1, 1, width, dtype=dtype, device="meta")
    return Setting(
        anatomy,
        method,
        calibration,
        Shapes(anatomy, hidden),
        placement.device,
        mapped=placement.saves_memory,
        device_memory=free,
        host_memory=free if placement.device.type == "cpu" else free_memory(),
        resumes=False,
    )


def _with(method: Method, **changes: Any) -> Method:
    """A method with other settings; not made anew, as it may know a Trainer."""
    other = copy(method)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def _runs_in_step(method: Method) -> bool:
    return any(evidence.sweep == "paired" for evidence in method.requests())
