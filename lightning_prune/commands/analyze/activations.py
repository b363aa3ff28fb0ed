"""`lightning-prune analyze activations MODEL`: thresholds below which activations are left out."""

from __future__ import annotations

from pathlib import Path

from lightning_prune.analysis.activations import Scope
from lightning_prune.checkpoints.load import PlacementName
from lightning_prune.commands.arguments import usable_device, writable_folder
from lightning_prune.commands.quiet import quiet_loading
from lightning_prune.data.text_data import TextData
from lightning_prune.models import CausalLM
from lightning_prune.models.loading import DType
from lightning_prune.report.activations import activations_document
from lightning_prune.report.files import show
from lightning_prune.studies.activations import measure_activations

__all__ = ["activations"]


@quiet_loading()
def activations(
    path: str,
    data: TextData,
    *,
    sparsity: float = 0.5,
    scope: Scope = "site",
    dtype: DType = "auto",
    placement: PlacementName = "memory",
    device: str | None = None,
    trust_remote_code: bool = False,
    out: str | Path | None = None,
) -> None:
    """Find below which magnitude activations can be left out.

    Thresholds at the inputs of Linears, from calibration text. The file that is written is what a
    kernel for sparse activations takes.

    Args:
        path: a folder, a name on the hub, or "quickstart".
        data: the calibration text.
        sparsity: fraction of the activations to leave out.
        scope: over what it is reached, with one threshold for each: "site" (a Linear), "projection"
            (the same Linear of all blocks), or "model".
        dtype: of the weights.
        placement: "memory", or "checkpoint" for a model that is larger than memory.
        device: where to run; None: a GPU if there is one.
        trust_remote_code: run Python code that comes with a model.
        out: a folder for activations.json.

    Raises:
        FileNotFoundError: there is no such model or text.
        ValueError: the model or the text cannot be used.
    """
    where = usable_device(device)
    folder = writable_folder(out)
    module = CausalLM(path, dtype=dtype, placement=placement, trust_remote_code=trust_remote_code)
    found = measure_activations(module, data, sparsity, scope, device=where)
    show(activations_document(found), folder)
