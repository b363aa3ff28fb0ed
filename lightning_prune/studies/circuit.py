"""What an undesired behaviour is due to, and what a model is like without it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_prune.attribution.attributions import Attributions, Contrast, Kind
from lightning_prune.attribution.attributions import contrast as contrasted
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.callbacks.circuit import Circuit
from lightning_prune.checkpoints.journal import Journal
from lightning_prune.data.prompts import Prompts
from lightning_prune.data.references import References
from lightning_prune.evaluation.completions import Sampling, completions
from lightning_prune.evaluation.perplexity import perplexity
from lightning_prune.evaluation.rates import Rate, mean_of, rate_of
from lightning_prune.evaluation.scorers.base import Scorer
from lightning_prune.evidence import Logit, Places
from lightning_prune.models import CausalLM
from lightning_prune.pipeline import prune
from lightning_prune.pipeline.attribute import By, attribute
from lightning_prune.pipeline.provenance import fingerprint
from lightning_prune.report.circuit import REPETITION, CircuitResult, Judged
from lightning_prune.report.numbers import perplexity_text, share_text
from lightning_prune.studies.bench import attach, first_windows
from lightning_prune.version import __version__

__all__ = ["Control", "study_circuit"]

Control = Literal["random", "magnitude"]


def study_circuit(
    module: CausalLM,
    data: Any,
    general: References,
    undesired: References,
    folder: str | Path,
    *,
    scorer: Scorer | None = None,
    judged: Prompts | None = None,
    counts: Sequence[int] = (10, 30, 100, 300, 1000),
    seeds: Sequence[int] = (0,),
    kind: Kind = "neuron",
    by: By = "relevance",
    contrast: Contrast = "difference",
    places: Places = "last",
    include: str | Sequence[str] = "*",
    controls: Sequence[Control] = ("random", "magnitude"),
    sampling: Sampling | None = None,
    windows: int | None = None,
    device: torch.device | str | None = None,
) -> CircuitResult:
    """Attribute over two sets, remove what they differ in, and judge the model with less and less.

    Each step is kept in the folder, so that the same call goes on where it was stopped: the
    attributions as `attributions/*.safetensors`, the ranking as `circuit.json`, which
    `Circuit(units=…, count=…)` removes without any of this, and what was judged in `steps`.
    Completions are scored and not kept.

    Args:
        module: the model; it is left as it was.
        data: a data module whose validation text perplexity is of.
        general: samples of what the model is to keep.
        undesired: samples of what it is to lose.
        folder: where steps are kept.
        scorer: how much of the undesired thing a completion has; None: how little of it is new, 1 -
            different tokens / tokens, from 0.5 on.
        judged: prompts whose completions are scored; None: those of `undesired`.
        counts: how many parts are removed, one after the other.
        seeds: both sets are drawn once with each, and their attributions averaged.
        kind: of what parts: "neuron", "group" or "weight".
        by: how parts are attributed, as of `attribute`.
        contrast: "difference", or "normalised"; see `Circuit`.
        places: which answers are explained, "last" or "all".
        include: patterns of names of Linears, of kind "weight".
        controls: what else is removed in the same numbers: "random" parts, or those of least
            "magnitude".
        sampling: how completions are drawn.
        windows: perplexity is of so many validation windows at most; None: of all of them.
        device: where the model runs; None: where it is.

    Raises:
        ValueError: there are no prompts to judge by, no such counts, or what the sets, the model or
            the scorer refuse; before anything is attributed where that is possible.
    """
    prompts = _prompts(undesired, judged)
    module.load()
    attach(data, module)
    folder, sampling = Path(folder), sampling or Sampling()
    judge = _Judge(module, data, prompts, scorer, sampling, folder, device, windows)
    counts = _counts(counts)
    ways: dict[str, Any] = {"by": by, "kind": kind, "include": include, "device": device}
    if by in ("relevance", "gradient"):
        ways["objective"] = Logit(places=places)
    maker = _Maker(module, folder / "attributions", ways)
    sets = [maker.mean(name, one, seeds) for name, one in
            (("general", general), ("undesired", undesired))]  # fmt: skip
    ranked = contrasted(sets[0], sets[1], contrast)
    circuit = CircuitUnits.lowest(ranked, counts[-1])
    circuit.save(folder / "circuit.json")
    lists = {"circuit": circuit}
    if "random" in controls:
        lists["random"] = CircuitUnits.random(ranked, counts[-1], seeds[0])
    if "magnitude" in controls:
        smallest = maker.made("magnitude", None, {**ways, "by": "magnitude"})
        lists["magnitude"] = CircuitUnits.lowest(smallest, counts[-1])
    rows = [judge.dense()]
    for count in counts:
        rows += [judge.without(name, listed.first(count)) for name, listed in lists.items()]
    settings = judge.settings() | {
        "general": dict(sets[0].facts),
        "undesired": dict(sets[1].facts),
        "seeds": list(seeds),
        "by": by,
        "kind": kind,
        "parts": ranked.count,
        "contrast": contrast,
        "places": places,
    }
    return CircuitResult(str(module.path), rows, settings)


def _prompts(undesired: References, judged: Prompts | None) -> list[str]:
    source = undesired if judged is None else judged
    if not isinstance(source, Prompts):
        raise ValueError(
            f"undesired={type(undesired).__name__}(…) has no prompts whose completions could be "
            "judged; give some as judged=Prompts(…)"
        )
    return source.texts()


def _counts(counts: Sequence[int]) -> list[int]:
    if not counts or any(not isinstance(count, int) or count < 1 for count in counts):
        raise ValueError(f"counts={list(counts)} is not allowed; they are whole numbers from 1 on")
    return sorted(set(counts))


class _Maker:
    """Makes attributions, or reads those that were made of the same model and samples.

    Args:
        module: the model.
        folder: of their files.
        ways: arguments of `attribute`.
    """

    def __init__(self, module: CausalLM, folder: Path, ways: dict[str, Any]) -> None:
        self.module, self.folder, self.ways = module, folder, ways
        self.model = fingerprint(module.base)

    def mean(self, name: str, references: References, seeds: Sequence[int]) -> Attributions:
        """Of a set, over seeds; one without randomness is taken once."""
        drawn = [references.with_seed(seed) for seed in seeds]
        if drawn[0].nsamples is None:
            drawn = drawn[:1]
        members = [
            self.made(f"{name}-{one.seed}" if len(drawn) > 1 else name, one, self.ways)
            for one in drawn
        ]
        return Attributions.mean(members)

    def made(self, name: str, references: References | None, ways: dict[str, Any]) -> Attributions:
        """Of one set, or of none."""
        module, path = self.module, self.folder / f"{name}.safetensors"
        batches: Sequence[dict[str, torch.Tensor]] = ()
        if references is not None:
            assert module.tokenizer is not None
            longest, vocabulary = module.max_position_embeddings, module.vocabulary
            batches = references.batches(module.tokenizer, longest, vocabulary)
        asked = {k: v if isinstance(v, str) else repr(v) for k, v in ways.items() if k != "device"}
        samples = None if references is None else references.describe()
        facts = json.loads(
            json.dumps({"model": self.model, "asked": asked, "samples": samples}, default=str)
        )
        if path.is_file():
            known = Attributions.load(path)
            if known.facts == facts:
                rank_zero_info(f"{path} is of these samples already")
                return known
        values = attribute(module.base, batches, **ways).values
        made = Attributions(ways["kind"], values, facts)
        made.save(path)
        return made


class _Judge:
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
        self.module, self.prompts, self.scorer = module, prompts, scorer
        self.sampling, self.device = sampling, device
        self.validation = first_windows(data.val_dataloader(), windows or 0)
        work = {
            "model": fingerprint(module.base),
            "version": __version__,
            "validation": _digest(
                batch["input_ids"].numpy().tobytes() for batch in self.validation
            ),
            "prompts": _digest(prompt.encode() for prompt in prompts),
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
        scores = [1 - share for share in unique]
        if self.scorer is not None:
            scores = self.scorer.score([answer.text for answer in answers])
        row = Judged(
            name,
            count,
            perplexity(model, self.validation, self.device),
            rate_of(scores, 0.5 if self.scorer is None else self.scorer.threshold),
            mean_of(scores),
            mean_of(unique),
        )
        self._journal.put(_step(name, removed), asdict(row) | {"perplexity": str(row.perplexity)})
        rate, said = share_text(row.rate.value), perplexity_text(row.perplexity)
        rank_zero_info(f"{title}: {rate} of the completions, perplexity {said}")
        return row

    def _known(self, name: str, removed: CircuitUnits | None) -> Judged | None:
        record = self._journal.get(_step(name, removed))
        if record is None:
            return None
        rates = {key: Rate(**record[key]) for key in ("rate", "score", "unique")}
        return Judged(**record | rates | {"perplexity": float(record["perplexity"])})


def _step(name: str, removed: CircuitUnits | None) -> dict[str, Any]:
    return {"name": name, "removed": removed and [removed.kind, *map(list, removed.members)]}


def _digest(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part + b"\0")
    return digest.hexdigest()
