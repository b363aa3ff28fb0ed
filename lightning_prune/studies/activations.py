"""Below which magnitude activations can be left out, measured on calibration text."""

from __future__ import annotations

from typing import Any, get_args

import torch

from lightning_prune.analysis.activations import Measured, Scope, Thresholds, thresholds_at
from lightning_prune.anatomy import Anatomy
from lightning_prune.checks import check_choice
from lightning_prune.evidence.input_magnitudes import InputMagnitudes
from lightning_prune.models import CausalLM
from lightning_prune.progress import BlockProgress
from lightning_prune.studies.bench import attach
from lightning_prune.sweep import HiddenStates, collect, evaluating, placement_of

__all__ = ["measure_activations"]


@torch.no_grad()
def measure_activations(
    module: CausalLM,
    data: Any,
    sparsity: float = 0.5,
    scope: Scope = "site",
    *,
    device: torch.device | str | None = None,
) -> Thresholds:
    """Measure below which magnitude the inputs of Linears can be left out.

    ```python
    thresholds = measure_activations(CausalLM("quickstart"), TextData(length=128), sparsity=0.5)
    thresholds.write("thresholds.json")
    ```

    The activations are those of the model as it is: nothing is left out while it is measured. (The
    code of https://github.com/dat-adi/sparsity_characterization zeroes what is above a threshold,
    and compares signed values; its kernel, as here, keeps |x| > threshold.)

    Args:
        module: the model.
        data: a data module with calibration batches.
        sparsity: fraction of the activations to leave out.
        scope: of each "site", of each "projection" over all blocks, or of the whole "model", with
            one threshold for each of these. A number counts for as many weights as it is multiplied
            by.
        device: where blocks run; None: where the model is.

    Raises:
        ValueError: no such sparsity or scope, no calibration text, or activations overflow.
    """
    if not 0 < sparsity < 1:
        raise ValueError(f"sparsity={sparsity} is not allowed; it is above 0 and below 1")
    check_choice("scope", scope, get_args(Scope))
    module.load()
    attach(data, module)
    if device is None:
        device = next(module.base.parameters()).device
    anatomy = Anatomy(module.base)
    placement = placement_of(anatomy, torch.device(device))
    inputs = []
    with (
        evaluating(module.base),
        BlockProgress(len(anatomy.blocks), "activations") as progress,
    ):
        states = HiddenStates(anatomy, data.calibration_dataloader(), placement)
        tokens = states.rows
        for block, results in collect(states, InputMagnitudes(), anatomy.blocks, "none"):
            for name, sites in block.inputs().items():
                outputs = {site.name: site.module.out_features for site in sites}
                magnitudes = type(results[name])(*(part.cpu() for part in results[name]))
                inputs.append(Measured(name, outputs, magnitudes))
            progress.advance(block.name)
    found, reached = thresholds_at(inputs, sparsity, scope)
    widths = {s.name: s.module.in_features for block in anatomy.blocks for s in block.sites}
    return Thresholds(sparsity, str(module.path), tokens, found, scope, reached, widths)
