"""`lightning-prune circuit`: what an undesired behaviour is due to, and the model without it."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.commands.study import kept_of, study_folder
from lightning_prune.data.references import References
from lightning_prune.models import CausalLM
from lightning_prune.report.circuit import circuit_document
from lightning_prune.report.files import show
from lightning_prune.report.kept.studies import circuit_run
from lightning_prune.studies.circuit import study_circuit

__all__ = ["circuit"]


def circuit(
    trainer: Trainer,
    model: CausalLM,
    datamodule: LightningDataModule,
    general: References,
    undesired: References,
    **asked: Any,
) -> None:
    """Find what an undesired behaviour is due to, and judge the model without it.

    Attributions over both sets, their difference, and for every count and control perplexity and
    the rate of the undesired thing in completions. What is done already is read from the run's
    folder, where circuit.json lists what to remove: Circuit(units=…, count=…) in another run.

    Args:
        trainer: says on which device, and in which folder.
        model: the model.
        datamodule: validation text, for perplexity.
        general: samples of what the model is to keep.
        undesired: samples of what it is to lose.
        asked: what `study_circuit` takes.

    Raises:
        ValueError: what `study_circuit` refuses, or the trainer has methods or processes.
    """
    folder = study_folder(trainer, "circuit", "general and undesired")
    device = trainer.strategy.root_device
    result = study_circuit(model, datamodule, general, undesired, folder, device=device, **asked)
    show(circuit_document(result), folder)
    kept_of(trainer).add(circuit_run, result, CircuitUnits.load(folder / "circuit.json"))
