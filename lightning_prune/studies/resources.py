"""What a run of `prune` will take, from the model's config and the heads of its files alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lightning_prune.anatomy import Anatomy, check_unquantised
from lightning_prune.checkpoints.config import reason_of
from lightning_prune.checkpoints.load import parse_dtype
from lightning_prune.checkpoints.names import weight_files
from lightning_prune.checkpoints.reader import TensorReader
from lightning_prune.data.text_data import LONGEST_DEFAULT
from lightning_prune.machine import free_memory, free_on_device, own_memory
from lightning_prune.methods.base import Method
from lightning_prune.models.module import PrunableModule
from lightning_prune.pipeline.demand import Calibration, Demand, Setting, model_bytes
from lightning_prune.pipeline.fit import helpful
from lightning_prune.pipeline.forecast import disk_of, forecast
from lightning_prune.report.resources import Phase, Resources, memory_text
from lightning_prune.studies.rates import rates_of, seconds_of
from lightning_prune.studies.written import disk_table, files_of
from lightning_prune.sweep.rehearsal import Rehearsal

__all__ = ["plan_resources"]

STARTED = 24 * 2**20
"""What libraries take when they run for the first time: code of a family, buffers of products."""


def plan_resources(
    module: PrunableModule,
    data: Any,
    methods: Method | Sequence[Method],
    *,
    device: torch.device | str = "cpu",
    processes: int = 1,
    nodes: int = 1,
    device_memory: int | None = None,
    host_memory: int | None = None,
    operations: float | None = None,
    read: float | None = None,
) -> Resources:
    """Say what pruning will take, before it is begun: no weights are read, and no text.

    ```python
    resources = plan_resources(CausalLM("quickstart"), TextData(nsamples=32), Wanda(sparsity=0.5))
    resources.peak_host, resources.passes["forward"]
    ```

    Args:
        module: the model; a folder with nothing but a config.json is enough.
        data: says how much calibration text there is: nsamples, length and batch_size.
        methods: what prunes, one after the other.
        device: where blocks run; it need not be there.
        processes: on all nodes together, one a device.
        nodes: how many.
        device_memory: bytes of a device; None: what is free on it, where it is there.
        host_memory: bytes of a node; None: what is free on this machine.
        operations: multiplications and additions a second of a device; None: measured, where the
            device is there.
        read: bytes that are read a second from the model's files; None: measured.

    Raises:
        FileNotFoundError: there is no config.
        ValueError: nothing can be made of the config, a method does not fit the model, it is not
            known how much calibration text there is, or a size or rate is not above 0.
    """
    methods = [methods] if isinstance(methods, Method) else list(methods)
    where = torch.device(device)
    if not methods:
        raise ValueError("there is no method to plan for; give one, such as Wanda(sparsity=0.5)")
    if nodes < 1 or processes < nodes:
        raise ValueError(f"{processes} processes on {nodes} nodes: give one or more for each node")
    _check_positive(
        device_memory=device_memory, host_memory=host_memory, operations=operations, read=read
    )
    anatomy = _anatomy(module)
    calibration = _calibration(module, data, methods)
    free = _free(where, device_memory, host_memory)
    setting = Setting(
        anatomy,
        methods[0],
        calibration,
        Rehearsal(anatomy, _batch(anatomy, calibration)),
        where,
        mapped=module.placement == "checkpoint",
        converted=_converted(module, anatomy),
        processes=processes,
        device_memory=free.get("device", free.get("host", 2**62)),
        host_memory=free.get("host", 2**62),
    )
    settings = [replace(setting, method=getattr(m, "scoring", m)) for m in methods]
    for method in methods:
        method.check(anatomy)
    demands = [forecast(one) for one in settings]
    disks = [disk_of(one) for one in settings]
    rounds = [int(getattr(method, "rounds", 1)) for method in methods]
    files = _stored(module)
    rates = rates_of(where, setting.rehearsal.hidden.dtype, files, operations, read)
    sums = {
        name: sum(n * getattr(d, name) for n, d in zip(rounds, demands, strict=True))
        for name in ("forward", "backward", "operations", "sent", "sweeps")
    }
    weights = sum(p.nbytes for p in anatomy.model.parameters())
    reading = weights * max(1, sums["sweeps"]) if setting.mapped else weights
    result = Resources(
        model=str(module.path or type(anatomy.model).__name__),
        methods=[repr(method) for method in methods],
        parameters=sum(p.numel() for p in anatomy.model.parameters()),
        weights=weights,
        device=where.type if where.index is None else str(where),
        processes=processes,
        nodes=nodes,
        placement=module.placement,
        calibration={
            "windows": calibration.windows,
            "length": calibration.length,
            "batch_size": calibration.batch_size,
        },
        phases=_phases(setting, demands),
        libraries=own_memory() + STARTED,
        disk=disk_table(disks, settings),
        passes={name: sums[name] for name in ("forward", "backward")},
        sent=int(sums["sent"]),
        operations=sums["operations"],
        read=int(reading),
        rates=rates,
        seconds=seconds_of(rates, sums["operations"], reading),
        files=files_of(disks, settings),
        free=free,
    )
    return replace(result, advice=_advice(result, settings))


def _check_positive(**given: float | None) -> None:
    for name, value in given.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value} is not allowed: give a number above 0, or none")


def _anatomy(module: PrunableModule) -> Anatomy:
    """The model without weights, as its config describes it."""
    config = module.origin.config()
    asked = parse_dtype(module.dtype_name) or getattr(config, "dtype", None)
    asked = asked or _stored_type(module) or torch.float32
    settings = {"attn_implementation": module.attn_implementation}
    try:
        with torch.device("meta"):
            model = module.auto_class.from_config(config, dtype=asked, **settings)
    except Exception as error:  # what transformers raises depends on the key
        raise ValueError(
            f"no model can be made from the config of {module.path!r} ({reason_of(error)}). "
            "Correct it, or save or download it again."
        ) from error
    check_unquantised(f"the model {module.path!r}", config)
    return Anatomy(model.eval())


def _calibration(module: PrunableModule, data: Any, methods: Sequence[Method]) -> Calibration:
    """How much calibration text there is, by what the data module says of itself."""
    windows, batch_size = getattr(data, "nsamples", None), getattr(data, "batch_size", None)
    longest = getattr(module.origin.config(), "max_position_embeddings", LONGEST_DEFAULT)
    length = getattr(data, "length", None) or min(LONGEST_DEFAULT, longest)
    if windows is None or batch_size is None:
        if not any(method.calibrates for method in methods):
            return Calibration(1, 2, 1)
        raise ValueError(
            f"{type(data).__name__} does not say how much calibration text there is: it takes "
            "nsamples, batch_size and length, as lightning_prune.TextData has them"
        )
    if length > longest:
        raise ValueError(
            f"length={length} is more than the {longest} tokens that the model can take; ask for "
            f"{longest} at most"
        )
    return Calibration(windows, length, batch_size)


def _batch(anatomy: Anatomy, calibration: Calibration) -> dict[str, torch.Tensor]:
    """The largest batch, without its numbers."""
    if "input_ids" not in anatomy.task.inputs:
        raise ValueError(
            f"{type(anatomy.model).__name__} reads {anatomy.task.form}, and what these take is not "
            "known beforehand: plan_resources is for models of token ids"
        )
    rows = min(calibration.batch_size, calibration.windows)
    return {"input_ids": torch.zeros(rows, calibration.length, dtype=torch.long, device="meta")}


def _stored(module: PrunableModule) -> list[Path]:
    """The files of the model's weights that are there; none where there is only a config."""
    folder = Path(module.source.location) if module.source is not None else None
    if folder is None or not folder.is_dir():
        return []
    try:
        return weight_files(folder)
    except FileNotFoundError:
        return []


def _stored_type(module: PrunableModule) -> torch.dtype | None:
    """The type of the first tensor of numbers in the model's files, by the head of one of them."""
    for path in _stored(module)[:1]:
        for info in TensorReader(path).info.values():
            if info.dtype.is_floating_point:
                return info.dtype
    return None


def _converted(module: PrunableModule, anatomy: Anatomy) -> bool:
    """Whether weights are not mapped as they are stored, but made in memory."""
    stored, used = _stored_type(module), next(anatomy.model.parameters()).dtype
    return module.source is None or (stored is not None and stored != used)


def _free(device: torch.device, of_device: int | None, of_host: int | None) -> dict[str, int]:
    """Bytes that are free, as far as they are known."""
    free = {"host": free_memory() if of_host is None else of_host}
    if device.type == "cpu":
        return free
    if of_device is not None:
        free["device"] = of_device
    elif device.type == "cuda" and torch.cuda.is_available():
        free["device"] = free_on_device(device)
    return free


def _phases(setting: Setting, demands: Sequence[Demand]) -> list[Phase]:
    """Loading, and then those of all methods."""
    loaded = model_bytes(setting.anatomy) if setting.converted else 0
    return [Phase("model loaded", {}, {"model": loaded}), *(p for d in demands for p in d.phases)]


def _advice(resources: Resources, settings: Sequence[Setting]) -> list[str]:
    """Whether it fits into what is free, and what would make it fit."""
    free, nodes = resources.free, resources.nodes
    lacking = []
    if resources.peak_device > free.get("device", 2**62):
        lacking.append(f"{memory_text(free['device'])} are free on the device")
    if resources.host_of_node > free["host"]:
        lacking.append(f"{memory_text(free['host'])} are free on the host")
    if not lacking:
        known = [f"{memory_text(size)} on the {place}" for place, size in free.items()]
        return [f"It fits: {' and '.join(known)} are free."]
    on_node = resources.processes // nodes
    helping = [] if settings[0].mapped else ["--model.placement checkpoint"]
    helping = [
        name
        for name in helping
        if _fits(resources, [replace(s, mapped=True, converted=False) for s in settings], on_node)
    ]
    for number, setting in enumerate(settings):
        for name, other in helpful(setting):
            changed = [*settings[:number], other, *settings[number + 1 :]]
            if len(helping) < 3 and _fits(resources, changed, on_node):
                helping.append(name)
    words = f"It does not fit: {' and '.join(lacking)}."
    fits = f"It would with {', or with '.join(helping)}."
    return [f"{words} {fits if helping else 'No single setting makes it fit.'}"]


def _fits(resources: Resources, settings: Sequence[Setting], on_node: int) -> bool:
    """Whether the same fits with other settings."""
    phases = _phases(settings[0], [forecast(setting) for setting in settings])
    other = replace(resources, phases=phases)
    host = other.peak_host * on_node
    return other.peak_device <= other.free.get("device", 2**62) and host <= other.free["host"]
