"""What an undesired behaviour is due to, and what a model is like without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_prune.anatomy import Anatomy
from lightning_prune.attribution.attributions import Attributions, Contrast, Kind
from lightning_prune.attribution.attributions import contrast as contrasted
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.callbacks.circuit import Circuit
from lightning_prune.data.prompts import Prompts
from lightning_prune.data.records import Labelled
from lightning_prune.data.references import References
from lightning_prune.digests import fingerprint
from lightning_prune.evaluation.agreement import agreement
from lightning_prune.evaluation.completions import Sampling
from lightning_prune.evaluation.scorers.base import Scorer, as_scorer
from lightning_prune.evidence import Logit, Places
from lightning_prune.models import CausalLM
from lightning_prune.pipeline.attribute import By, attribute, count_parts
from lightning_prune.report.circuit import CircuitResult
from lightning_prune.studies.bench import attach
from lightning_prune.studies.without import Judge

__all__ = ["Control", "study_circuit"]

Control = Literal["random", "magnitude"]


def study_circuit(
    module: CausalLM,
    data: Any,
    general: References,
    undesired: References,
    folder: str | Path,
    *,
    scorer: Scorer | Callable[[Sequence[str]], Iterable[float]] | None = None,
    labelled: Labelled | None = None,
    judged: Prompts | None = None,
    counts: Sequence[int] = (10, 30, 100, 300, 1000),
    seeds: Sequence[int] = (0,),
    kind: Kind = "neuron",
    by: By = "relevance",
    contrast: Contrast = "difference",
    places: Places = "last",
    include: str | Sequence[str] = "*",
    controls: Sequence[Control] = ("random", "magnitude"),
    random_draws: int = 3,
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
            different tokens / tokens, from 0.5 on. What a function of one's own has scored is
            scored again when the study goes on.
        labelled: texts with labels of the undesired thing, by which the scorer itself is judged:
            stands beside its rates.
        judged: prompts whose completions are scored; None: those of `undesired`.
        counts: how many parts are removed, one after the other.
        seeds: both sets are drawn once with each, and their attributions averaged.
        kind: of what parts: "neuron", "group" or "weight".
        by: how parts are attributed, as of `attribute`.
        contrast: "difference", "normalised" or "guarded"; see `Circuit`.
        places: which answers are explained, "last" or "all".
        include: patterns of names of Linears, of kind "weight".
        controls: what else is removed in the same numbers: "random" parts, or those of least
            "magnitude".
        random_draws: how many times random parts are drawn; their mean and spread are shown.
        sampling: how completions are drawn.
        windows: perplexity is of so many validation windows at most; None: of all of them.
        device: where the model runs; None: where it is.

    Raises:
        ValueError: there are no prompts to judge by, no seeds, no such counts, or what the sets,
            the model or the scorer refuse; before anything is attributed where that is possible.
    """
    prompts = _prompts(undesired, judged)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)} is not allowed; give one or more, each once")
    for name, value, choices in (
        *(("controls", control, get_args(Control)) for control in controls),
        ("contrast", contrast, get_args(Contrast)),
    ):
        if value not in choices:
            raise ValueError(f"{name}={value!r} is not allowed; it is one of {', '.join(choices)}")
    if by == "magnitude":
        raise ValueError("by='magnitude' looks at no samples, so that the two sets cannot differ")
    if "random" in controls and random_draws < 1:
        raise ValueError(f"random_draws={random_draws}; give 1 or more, or no random control")
    scorer = None if scorer is None else as_scorer(scorer)
    module.load()
    attach(data, module)
    folder, sampling = Path(folder), sampling or Sampling()
    judge = Judge(module, data, prompts, scorer, sampling, folder, device, windows)
    counts = _counts(counts, count_parts(module.base, kind, include), kind)
    ways: dict[str, Any] = {"by": by, "kind": kind, "include": include, "device": device}
    if by in ("relevance", "gradient"):
        ways["objective"] = Logit(places=places)
    maker = _Maker(module, folder / "attributions", ways)
    sets = [maker.mean(name, one, seeds) for name, one in
            (("general", general), ("undesired", undesired))]  # fmt: skip
    ranked = contrasted(sets[0], sets[1], contrast)
    circuit = CircuitUnits.lowest(ranked, counts[-1])
    circuit.save(folder / "circuit.json")
    lists = {("circuit", 1): circuit}
    if "random" in controls:
        for draw in range(random_draws):
            drawn = CircuitUnits.random(ranked, counts[-1], seeds[0] + draw)
            lists["random", draw + 1] = drawn
    if "magnitude" in controls:
        smallest = maker.made("magnitude", None, {**ways, "by": "magnitude"})
        lists["magnitude", 1] = CircuitUnits.lowest(smallest, counts[-1])
    anatomy = Anatomy(module.base)
    for listed in lists.values():
        Circuit(units=listed).check(anatomy)
    agreed = None if scorer is None or labelled is None else _agreement(scorer, labelled)
    rows = [judge.dense()]
    for count in counts:
        for (name, draw), listed in lists.items():
            rows.append(replace(judge.without(name, listed.first(count)), draw=draw))
    settings = judge.settings() | {
        "general": dict(sets[0].facts),
        "undesired": dict(sets[1].facts),
        "agreement": agreed,
        "draws": [_draws(one) for one in sets],
        "in_sample": judged is None,
        "by": by,
        "kind": kind,
        "parts": ranked.count,
        "contrast": contrast,
        "places": places,
    }
    return CircuitResult(str(module.path), rows, settings)


def _draws(attributions: Attributions) -> int:
    """How many draws of samples it is the mean of."""
    return len(attributions.facts.get("mean_of", [None]))


def _prompts(undesired: References, judged: Prompts | None) -> list[str]:
    source = undesired if judged is None else judged
    if not isinstance(source, Prompts):
        raise ValueError(
            f"undesired={type(undesired).__name__}(…) has no prompts whose completions could be "
            "judged; give some as judged=Prompts(…)"
        )
    return source.texts()


def _agreement(scorer: Scorer, labelled: Labelled) -> dict[str, Any]:
    """How well the scorer itself agrees with labels that others gave."""
    texts, labels, _ = labelled.read()
    return asdict(agreement(scorer, texts, labels, labelled.cut)) | {"source": labelled.source}


def _counts(counts: Sequence[int], parts: int, kind: str) -> list[int]:
    if not counts or any(type(n) is not int or not 1 <= n < parts for n in counts):
        raise ValueError(
            f"counts={list(counts)} is not allowed; they are whole numbers from 1 to "
            f"{parts - 1:,}, as the model has {parts:,} {kind}s"
        )
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
