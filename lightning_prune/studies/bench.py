"""What studies work on: a dense model, its texts, and the results that are there already."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.checkpoints.journal import Journal
from lightning_prune.data.image_data import ImageData
from lightning_prune.data.protocols import Calibrating, Windowed, begun_with, sources_of
from lightning_prune.digests import fingerprint
from lightning_prune.evaluation import classify, window_losses
from lightning_prune.files import is_disk_full
from lightning_prune.methods.base import Method
from lightning_prune.models import CausalLM
from lightning_prune.models.image_classifier import ImageClassifier
from lightning_prune.models.module import PrunableModule
from lightning_prune.pipeline import prune
from lightning_prune.pipeline.reuse import Reuse
from lightning_prune.report.grid import Cell
from lightning_prune.report.measures import MEASURES
from lightning_prune.version import __version__

__all__ = ["Asked", "Batches", "Bench", "attach", "digest_of", "first_windows"]

Batches = list[dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Asked:
    """One result that is wanted.

    Attributes:
        label: the method, for a table.
        target: what is asked of it, for a table.
        method: the method itself.
    """

    label: str
    target: str
    method: Method


class Bench:
    """A dense model and its texts, or images: copies of it are pruned and judged, each once.

    Args:
        module: the model.
        data: calibration and validation batches.
        device: where blocks run; None: where the model is.
        journal: a folder in which results are kept and found again; None: they are not kept.
        windows: validation windows, or images, at most; None: all.

    Attributes:
        measure: what models are judged by: perplexity, or accuracy.
        calibration: the calibration batches.
        validation: the validation batches.
        journal: where results are kept; None: nowhere.
    """

    def __init__(
        self,
        module: PrunableModule,
        data: Any,
        device: torch.device | str | None = None,
        journal: str | Path | None = None,
        windows: int | None = None,
    ) -> None:
        if windows is not None and windows < 1:
            raise ValueError(f"windows={windows}; give 1 or more, or nothing for all of them")
        module.load()
        attach(data, module)
        keeps = journal is not None and isinstance(data, Windowed)
        if keeps:  # the tokens of what was done before are ours
            data.restore(journal)
        self.module, self.data = module, data
        parameter = next(module.base.parameters())
        self.device = parameter.device if device is None else torch.device(device)
        self.calibration: Batches = list(data.calibration_dataloader())
        self.validation = first_windows(data.val_dataloader(), windows or 0)
        task = Anatomy(module.base).task
        self.measure = MEASURES[task.judged_by]
        for batches in (self.calibration, self.validation):
            if not all(task.windows_of in batch for batch in batches):
                raise ValueError(
                    f"methods are compared by {task.judged_by}, and {type(data).__name__} does not "
                    f"give what that is of: its batches have no {task.windows_of}"
                )
        if keeps:
            data.keep(journal)
        self._weights = sum(
            site.module.weight.numel()
            for block in Anatomy(module.base).blocks
            for site in block.sites
        )
        work = {"model": fingerprint(module.base), "version": __version__}
        self.journal = None if journal is None else Journal(journal, work)

    @property
    def name(self) -> str:
        """What the model is called: its path, or its name on the hub."""
        return str(self.module.path)

    def dense(self) -> float:
        """The perplexity, or accuracy, of the dense model on the validation data."""
        texts = self.calibration, self.validation
        cell = self._known("dense", *texts)
        if cell is None:
            cell = Cell("dense", "", sparsity=0.0, seconds=0.0)
            cell = self._judged(cell, self.module.base, self.validation)
            self._keep("dense", *texts, replace(cell, losses=[]))
        value = self.measure.of(cell)
        assert value is not None
        return value

    def cell(
        self,
        asked: Asked,
        reuse: Reuse,
        calibration: Batches | None = None,
        judge: Batches | None = None,
    ) -> Cell:
        """One result, known or new; an error is one, too, and is tried again the next time.

        Args:
            asked: what is wanted.
            reuse: what other methods have collected on the same calibration batches.
            calibration: other calibration batches; None: all.
            judge: other batches to judge by; None: the validation data.
        """
        calibration = self.calibration if calibration is None else calibration
        judge = self.validation if judge is None else judge
        call = repr(asked.method)
        known = self._known(call, calibration, judge)
        cell = known or self._new(asked, reuse, calibration, judge)
        if known is None and not cell.error:
            self._keep(call, calibration, judge, cell)
        figure = f"{self.measure.name} {self.measure.text(self.measure.of(cell))}"
        result = cell.error or figure + ", known" * bool(known)
        rank_zero_info(f"{asked.label} {asked.target}: {result}")
        return replace(cell, method=asked.label, target=asked.target)

    def settings(self) -> dict[str, Any]:
        """What the results are measured with."""
        device = self.device
        windows, length = _windows(self.calibration)
        judged, judged_length = _windows(self.validation)
        amount = f"{windows} images" if length is None else f"{windows} x {length} tokens"
        return {
            "measure": self.measure.name,
            "length": judged_length,
            "windows": judged,
            "begin": begun_with(self.data, "validation"),
            "calibration": f"calibrated on {amount}",
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "dtype": str(self.module.base.dtype).removeprefix("torch."),
            "data": dict(sources_of(self.data)),
            "versions": {"torch": str(torch.__version__), "lightning_prune": __version__},
        }

    @property
    def length(self) -> int:
        """Tokens of the longest calibration window.

        Raises:
            ValueError: the calibration data are no text.
        """
        length = _windows(self.calibration)[1]
        if length is None:
            raise ValueError(f"this is for text, and {type(self.data).__name__} gives images")
        return length

    def _new(self, asked: Asked, reuse: Reuse, calibration: Batches, judge: Batches) -> Cell:
        try:
            pruned = copy.deepcopy(self.module.base)
            start = time.perf_counter()
            prune(pruned, asked.method, calibration, self.device, reuse)
            seconds = time.perf_counter() - start
            sparsity = 1 - _nonzero(pruned) / self._weights
            cell = Cell(asked.label, asked.target, sparsity=sparsity, seconds=seconds)
            return self._judged(cell, pruned, judge)
        except Exception as error:  # a row of the table; the other cells go on
            if is_disk_full(error):
                raise
            reason = " ".join(str(error).split())
            if not (reason and isinstance(error, (ValueError, OSError))):
                reason = f"{type(error).__name__}: {reason}"
            return Cell(asked.label, asked.target, error=reason)

    def _judged(self, cell: Cell, model: nn.Module, judge: Batches) -> Cell:
        """The cell, with what a model comes to."""
        accuracy = None
        if self.measure.name == "accuracy":
            said = classify(model, judge, self.device)
            losses, count, accuracy = said.loss_N.tolist(), len(said.loss_N), said.accuracy
        else:
            losses, count = window_losses(model, judge, self.device)
        mean = torch.tensor(losses, dtype=torch.float64).sum() / count
        losses = losses if bool(mean.isfinite()) else []  # JSON has no inf
        return replace(cell, perplexity=float(mean.exp()), accuracy=accuracy, losses=losses)

    def _known(self, call: str, calibration: Batches, judge: Batches) -> Cell | None:
        """A result that is in the journal."""
        record = self.journal and self.journal.get(self._step(call, calibration, judge))
        if not record:
            return None
        return Cell(**record | {"perplexity": float(record["perplexity"])})

    def _keep(self, call: str, calibration: Batches, judge: Batches, cell: Cell) -> None:
        """Write a result into the journal."""
        if self.journal is not None:
            record = asdict(cell) | {"perplexity": str(cell.perplexity)}  # JSON has no inf
            self.journal.put(self._step(call, calibration, judge), record)

    def _step(self, call: str, calibration: Batches, judge: Batches) -> dict[str, Any]:
        return {"call": call, "calibration": digest_of(calibration), "validation": digest_of(judge)}


def attach(data: Any, module: PrunableModule) -> None:
    """Make a data module ready for a model, without a Trainer.

    `TextData` takes the tokenizer, `ImageData` what the model asks of images; any other one is set
    up as for `fit`.

    Raises:
        ValueError: it has no calibration batches.
    """
    calibrates, windowed = isinstance(data, Calibrating), isinstance(data, Windowed)
    if not calibrates:
        raise ValueError(
            f"{type(data).__name__} has no calibration_dataloader; give a data module that has "
            "one, such as lightning_prune.TextData"
        )
    if isinstance(data, ImageData):
        if not isinstance(module, ImageClassifier):
            raise ValueError(f"ImageData is for an ImageClassifier; got {type(module).__name__}")
        data.attach(module.preparation)
    elif not windowed:
        data.prepare_data()
        data.setup("fit")
    elif isinstance(module, CausalLM) and module.tokenizer is not None:
        data.attach(module.tokenizer, module.max_position_embeddings, module.vocabulary)


def first_windows(batches: Iterable[Mapping[str, torch.Tensor]], count: int) -> Batches:
    """The first windows of batches; no more batches are read than that takes.

    Args:
        batches: dicts with `input_ids` (B, T).
        count: how many windows; 0: all.
    """
    taken: Batches = []
    left = count or math.inf
    for batch in batches:
        size = int(min(left, min(len(tensor) for tensor in batch.values())))
        taken.append({name: tensor[:size] for name, tensor in batch.items()})
        left -= size
        if left <= 0:
            break
    return taken


def _nonzero(model: nn.Module) -> int:
    """How many weights of the blocks' Linears are not zero."""
    return sum(
        int(site.module.weight.count_nonzero())
        for block in Anatomy(model).blocks
        for site in block.sites
    )


def _windows(batches: Batches) -> tuple[int, int | None]:
    """How many windows there are, and the tokens of the longest; images have none."""
    if "input_ids" not in batches[0]:
        return sum(len(batch["pixel_values"]) for batch in batches), None
    shapes = [batch["input_ids"].shape for batch in batches]
    return sum(shape[0] for shape in shapes), max(shape[1] for shape in shapes)


def digest_of(batches: Iterable[Mapping[str, torch.Tensor]]) -> str:
    """A hash of batches."""
    digest = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            digest.update(f"{name} {tuple(batch[name].shape)}".encode())
            digest.update(batch[name].cpu().numpy().tobytes())
    return digest.hexdigest()
