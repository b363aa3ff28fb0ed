"""What a model is like without some of its parts: judged once, and found again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.callbacks.circuit import Circuit
from lightning_prune.checkpoints.journal import Journal
from lightning_prune.digests import fingerprint
from lightning_prune.evaluation.completions import Sampling, completions
from lightning_prune.evaluation.perplexity import perplexity
from lightning_prune.evaluation.rates import Rate, mean_of, rate_of
from lightning_prune.evaluation.scorers.base import Scorer
from lightning_prune.models import CausalLM
from lightning_prune.pipeline import prune
from lightning_prune.report.circuit import REPETITION, Judged
from lightning_prune.report.numbers import perplexity_text, share_text
from lightning_prune.studies.bench import digest_of, first_windows
from lightning_prune.version import __version__

__all__ = ["Judge"]


class Judge:
    """Judges a model with parts of it removed, each list once.

    Args:
        module: the model, left as it was.
        data: its validation text.
        prompts: whose completions are scored.
        scorer: of completions; None: repetition.
        sampling: how they are drawn.
        folder: where results are kept.
        device: where the model runs.
        windows: of the validation text at most.
    """

    def __init__(
        self,
        module: CausalLM,
        data: Any,
        prompts: Sequence[str],
        scorer: Scorer | None,
        sampling: Sampling,
        folder: Path,
        device: torch.device | str | None,
        windows: int | None,
    ) -> None:
        if windows is not None and windows < 1:
            raise ValueError(f"windows={windows}; give 1 or more, or nothing for all of them")
        self.module, self.prompts, self.scorer = module, prompts, scorer
        self.sampling, self.device = sampling, device
        self.validation = first_windows(data.val_dataloader(), windows or 0)
        work = {
            "model": fingerprint(module.base),
            "version": __version__,
            "validation": digest_of(self.validation),
            "prompts": hashlib.sha256("\0".join(prompts).encode()).hexdigest(),
            "sampling": repr(sampling),
            "scorer": self._scored_by(),
        }
        self._journal = Journal(folder / "steps", work)

    def dense(self) -> Judged:
        """The model as it is."""
        return self._known("dense", None) or self._new("dense", None)

    def without(self, name: str, removed: CircuitUnits) -> Judged:
        """The model without these parts."""
        known = self._known(name, removed)
        if known is not None:
            return known
        plan = prune(self.module.base, Circuit(units=removed))
        try:
            return self._new(name, removed)
        finally:
            plan.restore(self.module.base)

    def settings(self) -> dict[str, Any]:
        """What was judged, and how."""
        windows = sum(len(batch["input_ids"]) for batch in self.validation)
        return {
            "windows": windows,
            "length": self.validation[0]["input_ids"].shape[1],
            "prompts": len(self.prompts),
            "sampling": self.sampling.arguments,
            "scorer": self._scored_by(),
            "versions": {"torch": str(torch.__version__), "lightning_prune": __version__},
        }

    def _scored_by(self) -> dict[str, Any]:
        if self.scorer is None:
            return {"class": REPETITION, "misses": ""}
        return self.scorer.describe()

    def _new(self, name: str, removed: CircuitUnits | None) -> Judged:
        count = 0 if removed is None else len(removed)
        model, title = self.module.base, f"{name} {count}" if count else name
        assert self.module.tokenizer is not None
        how = self.sampling, self.device, f"completions of {title}"
        answers = completions(model, self.module.tokenizer, self.prompts, *how)
        unique = [answer.unique for answer in answers]
        scores = [1 - share if share else 0.0 for share in unique]  # silence repeats nothing
        if self.scorer is not None:
            scores = self.scorer.score([answer.text for answer in answers])
        row = Judged(
            name,
            count,
            perplexity(model, self.validation, self.device),
            rate_of(scores, 0.5 if self.scorer is None else self.scorer.threshold),
            mean_of(scores),
            mean_of(unique),
            silent=sum(not answer.unique for answer in answers) / len(answers),
        )
        self._journal.put(_step(name, removed), asdict(row) | {"perplexity": str(row.perplexity)})
        rate, said = share_text(row.rate.value), perplexity_text(row.perplexity)
        rank_zero_info(f"{title}: {rate} of the completions, perplexity {said}")
        return row

    def _known(self, name: str, removed: CircuitUnits | None) -> Judged | None:
        record = self._journal.get(_step(name, removed))
        if record is None or not (self.scorer is None or self.scorer.reusable):
            return None
        rates = {key: Rate(**record[key]) for key in ("rate", "score", "unique")}
        return Judged(**record | rates | {"perplexity": float(record["perplexity"])})


def _step(name: str, removed: CircuitUnits | None) -> dict[str, Any]:
    return {"name": name, "removed": removed and [removed.kind, *map(list, removed.members)]}
