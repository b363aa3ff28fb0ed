"""How important each block is, measured once and used again by allocations and adapters."""

from __future__ import annotations

from typing import Any, get_args

import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.checks import check_choice
from lightning_prune.data.protocols import begun_with, sources_of
from lightning_prune.evidence import Evidence, Measure, Part
from lightning_prune.evidence import measure as evidence_of
from lightning_prune.models.module import PrunableModule
from lightning_prune.progress import BlockProgress
from lightning_prune.report.importance import Importance
from lightning_prune.studies.bench import attach, first_windows
from lightning_prune.sweep import HiddenStates, collect, evaluating, placement_of
from lightning_prune.version import __version__

__all__ = ["measure_importance"]


@torch.no_grad()
def measure_importance(
    module: PrunableModule,
    data: Any,
    measure: Measure = "removal",
    part: Part = "block",
    windows: int = 32,
    *,
    device: torch.device | str | None = None,
) -> Importance:
    """Measure how important each block is, for allocations to use.

    ```python
    importance = measure_importance(CausalLM("quickstart"), TextData(length=128), "angular")
    importance.write("runs/importance")
    ```

    On calibration text, which is training text: what is measured decides what is pruned, so the
    text that the result is judged by must not have a part in it.

    Args:
        module: the model.
        data: a data module with calibration batches.
        measure: "removal" (what the perplexity rises by without the block), "norm" (of the block's
            output), or how much a block changes what passes through it: "angular", "cosine",
            "mse", "mae".
        part: of the whole "block", or of its "attention" or "mlp".
        windows: calibration windows to take; 0: all.
        device: where blocks run; None: where the model is.

    Raises:
        ValueError: no such measure, part or number of windows; or importance is not finite.
    """
    evidence = _evidence(measure, part, windows)
    module.load()
    attach(data, module)
    if device is None:
        device = next(module.base.parameters()).device
    batches = first_windows(data.calibration_dataloader(), windows)
    anatomy, values = Anatomy(module.base), {}
    placement = placement_of(anatomy, torch.device(device))
    with (
        evaluating(module.base),
        BlockProgress(len(anatomy.blocks), f"importance by {measure}") as progress,
    ):
        states = HiddenStates(anatomy, batches, placement)
        for block, results in collect(states, evidence, anatomy.blocks, "none"):
            values[block.index] = results["block"]
            progress.advance(block.name)
    members = [batch[anatomy.task.windows_of] for batch in batches]
    settings = {
        "windows": sum(map(len, members)),
        "length": members[0].shape[1] if members[0].ndim == 2 else None,
        "begin": begun_with(data, "calibration"),
        "calibration": sources_of(data).get("calibration"),
        "versions": {"lightning_prune": __version__, "torch": str(torch.__version__)},
    }
    return Importance(str(module.path), measure, part, values, settings)


def _evidence(name: Measure, part: Part, windows: int) -> Evidence:
    check_choice("measure", name, get_args(Measure))
    check_choice("part", part, get_args(Part))
    if windows < 0:
        raise ValueError(f"windows={windows}; give 1 or more calibration windows, or 0 for all")
    if part != "block" and name == "norm":
        raise ValueError("measure='norm' is that of a block's output; take part='block'")
    return evidence_of(name, part)
