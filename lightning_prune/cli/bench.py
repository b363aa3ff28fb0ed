"""What `search` works on: the dense model, the texts, and the results that are there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_prune.cli.grid import Asked, Store, digest_of, done, weights_of
from lightning_prune.data import TextData
from lightning_prune.evaluation import perplexity
from lightning_prune.models import CausalLM
from lightning_prune.provenance import fingerprint
from lightning_prune.report.grid import Cell, number
from lightning_prune.reuse import Reuse
from lightning_prune.version import __version__

__all__ = ["Batches", "Bench"]

Batches = list[dict[str, torch.Tensor]]


class Bench:
    """The dense model, the texts, and what is done already."""

    def __init__(
        self, module: CausalLM, data: TextData, device: torch.device, folder: Path, samples: int
    ) -> None:
        module.load()
        data.nsamples = samples
        if module.tokenizer is not None:
            data.attach(module.tokenizer, module.max_position_embeddings, module.vocabulary)
            data.restore(folder)
        self.module, self.data, self.device, self.folder = module, data, device, folder
        self.calibration = list(data.calibration_dataloader())
        self.validation = list(data.val_dataloader())
        data.keep(folder)
        self._weights = weights_of(module.base)
        self._model = fingerprint(module.base)

    def _store(self, calibration: Batches, judge: Batches) -> Store:
        common = {
            "model": self._model,
            "calibration": digest_of(calibration),
            "validation": digest_of(judge),
            "version": __version__,
        }
        return Store(self.folder / "cells", common)

    def dense(self) -> float:
        """The perplexity of the dense model on the validation text."""
        store = self._store(self.calibration, self.validation)
        known = store.get("dense")
        if known is None:
            value = perplexity(self.module.base, self.validation, self.device)
            known = store.put("dense", Cell("dense", "", value, 0.0, 0.0))
        assert known.perplexity is not None
        return known.perplexity

    def cell(self, asked: Asked, calibration: Batches, judge: Batches, reuse: Reuse) -> Cell:
        """One result: known, or found and kept."""
        store, call = self._store(calibration, judge), repr(asked.method)
        known = store.get(call)
        base, weights = self.module.base, self._weights
        found = known or done(asked, base, weights, calibration, judge, self.device, reuse)
        if known is None and not found.error:
            store.put(call, found)
        said = found.error or f"perplexity {number(found.perplexity)}" + ", known" * bool(known)
        rank_zero_info(f"{asked.label} {asked.target}: {said}")
        return Cell(
            asked.label,
            asked.target,
            found.perplexity,
            found.sparsity,
            found.seconds,
            found.error,
        )

    def settings(self) -> dict[str, Any]:
        """What the results are measured with."""
        device, validation = self.device, self.validation
        return {
            "window": validation[0]["input_ids"].shape[1],
            "windows": sum(len(batch["input_ids"]) for batch in validation),
            "begin": self.data.begun_with("validation"),
            "calibration": f"calibrated on {self.data.nsamples} x {self.data.length} tokens",
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "dtype": str(self.module.base.dtype).removeprefix("torch."),
            "data": self.data.sources,
            "versions": {"torch": str(torch.__version__), "lightning_prune": __version__},
        }
