"""What a run of `prune` will write, and what of it is on the disk at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_prune.checkpoints.names import shard_name
from lightning_prune.checkpoints.writer import parse_size
from lightning_prune.pipeline.demand import Setting
from lightning_prune.pipeline.forecast import Disk

__all__ = ["disk_table", "files_of"]

SHARD = "50GB"
"""Of the pruned model, as `SavePretrained` writes it."""


def disk_table(disks: Sequence[Disk], settings: Sequence[Setting]) -> dict[str, int]:
    """Of all methods: plans stay, what is kept on the way goes with each."""
    return {
        "plan": sum(disk.plan for disk in disks),
        "finished blocks": max(disk.unfinished for disk in disks),
        "changed blocks": max(disk.changes for disk in disks),
        "hidden states": max(disk.hidden for disk in disks),
        "pruned model": _left(disks, settings),
        "peak": sum(disk.plan for disk in disks[:-1]) + max(disk.peak for disk in disks),
    }


def files_of(disks: Sequence[Disk], settings: Sequence[Setting]) -> dict[str, int | None]:
    """What is written into the run's folder; None: small."""
    files: dict[str, int | None] = {}
    for number, (disk, setting) in enumerate(zip(disks, settings, strict=True), start=1):
        folder = "plan" if len(disks) == 1 else f"plan-{number}"
        if disk.unfinished:
            files[f"{folder}-unfinished/ (until the plan is there)"] = disk.unfinished
        corrected = disk.corrected
        files[f"{folder}/plan.json"] = None
        files[f"{folder}/plan.safetensors"] = disk.plan - corrected
        if corrected:
            files[f"{folder}/corrected.safetensors"] = corrected
        if setting.method.calibrates:
            tokens = setting.calibration.windows * setting.calibration.length
            files[f"{folder}/calibration.safetensors"] = 8 * tokens
    if changes := max(disk.changes for disk in disks):
        files["weights/ (until the process ends)"] = changes
    size, limit = _left(disks, settings), parse_size(SHARD)
    count = max(1, math.ceil(size / limit))
    files["pruned/config.json, tokenizer, card, plan"] = None
    for number in range(1, count + 1):
        files[f"pruned/{shard_name(number, count)}"] = min(limit, size - (number - 1) * limit)
    files |= dict.fromkeys(("config.yaml", "report.html, report.json, structure.svg"), None)
    return files


def _left(disks: Sequence[Disk], settings: Sequence[Setting]) -> int:
    """Bytes of the model when all methods have cut their parts."""
    dense = sum(p.nbytes for p in settings[0].anatomy.model.parameters())
    return max(0, dense - sum(dense - disk.model for disk in disks))
