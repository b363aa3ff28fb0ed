"""`lightning-prune importance`: how important each block is, measured once and used again."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch

from lightning_prune.allocation import MEASURES
from lightning_prune.anatomy import Anatomy
from lightning_prune.data import TextData
from lightning_prune.evidence import INFLUENCE
from lightning_prune.models import CausalLM
from lightning_prune.report.importance import Importance, print_importance
from lightning_prune.report.progress import BlockProgress
from lightning_prune.sweep import HiddenStates, Part, evaluating, influence_sweep, removal_sweep
from lightning_prune.version import __version__

__all__ = ["measure_importance"]


@torch.no_grad()
def measure_importance(
    module: CausalLM,
    data: TextData,
    measure: str,
    part: str,
    windows: int,
    device: torch.device,
    folder: Path,
) -> Importance:
    """Measure, print, and write importance.json and importance.svg into a folder.

    Raises:
        ValueError: no such measure, part or number of windows; or importance is not finite.
    """
    if measure not in MEASURES or part not in get_args(Part) or windows < 0:
        raise ValueError(
            f"measure={measure!r}, part={part!r}, windows={windows}: measure is one of "
            f"{', '.join(MEASURES)}; part one of {', '.join(get_args(Part))}; windows 0 (all "
            "calibration windows) or more"
        )
    if part != "block" and measure == "norm":
        raise ValueError("measure='norm' is that of a block's output; take part='block'")
    module.load()
    if module.tokenizer is not None:
        data.attach(module.tokenizer, module.max_position_embeddings, module.vocabulary)
    batches, taken = [], 0
    for batch in data.calibration_dataloader():
        if windows and taken >= windows:
            break
        left = windows - taken if windows else len(batch["input_ids"])
        batches.append({name: tensor[:left] for name, tensor in batch.items()})
        taken += len(batches[-1]["input_ids"])
    anatomy = Anatomy(module.base)
    values = {}
    with (
        evaluating(module.base),
        BlockProgress(len(anatomy.blocks), f"importance by {measure}") as progress,
    ):
        states = HiddenStates(anatomy, batches, device)
        if measure == "removal":
            found = removal_sweep(states, anatomy.blocks, 0, part)  # type: ignore[arg-type]
        else:
            found = influence_sweep(states, INFLUENCE[measure], anatomy.blocks, 1, part)  # type: ignore[arg-type]
        for block, value in found:
            values[block.index] = value
            progress.advance(block.name)
    settings = {
        "windows": taken,
        "length": batches[0]["input_ids"].shape[1],
        "calibration": data.sources["calibration"],
        "versions": {"lightning_prune": __version__, "torch": str(torch.__version__)},
    }
    importance = Importance(str(module.path), measure, part, values, settings)
    print_importance(importance, importance.write(folder))
    return importance
