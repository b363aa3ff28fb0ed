"""The figures of one run, as a value that is written to and read from JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_prune.evaluation.results import Evaluation
from lightning_prune.report.files import as_json

__all__ = ["Asked", "BlockShape", "Differing", "Report", "StageMetrics"]

NOTICED = 0.005
"""A matrix with a smaller fraction of zeros has not been masked: zeros happen."""


@dataclass(frozen=True)
class StageMetrics:
    """What was measured of the model at one stage of a run; None where it was not measured."""

    perplexity: float | None
    """Over the windows named in the report's settings."""
    parameters: int
    """Entries of all parameter tensors, zeros included."""
    nonzero: int
    """Entries that are not zero."""
    bytes: int
    """Of the parameters as stored."""
    tokens_per_second: float | None
    """Tokens, or images, that a forward pass takes in a second; None: not measured."""
    accuracy: float | None = None
    """Of a classifier: the share of images whose class comes first."""
    top5: float | None = None
    """The share of images whose class is among the first five; None too where there are no more."""

    @property
    def zeros(self) -> float:
        """Fraction of entries that are zero."""
        return 1 - self.nonzero / max(self.parameters, 1)

    def same_work(self, other: StageMetrics) -> bool:
        """As many parameters of as many bytes: zeros at most differ, which bring no speed."""
        return (self.parameters, self.bytes) == (other.parameters, other.bytes)

    def only_masked(self, dense: StageMetrics) -> bool:
        """Whether it has more zeros than the dense model, and not fewer parameters."""
        return self.parameters >= dense.parameters and self.zeros > dense.zeros + 5e-4


@dataclass(frozen=True)
class BlockShape:
    """One block as it is now and as it was: query heads, key/value heads, MLP neurons, masks.

    A block that was taken out has none of them any more.
    """

    index: int
    """Place of the block in the dense model, from 0."""
    heads: int
    kv_heads: int
    width: int
    """Neurons of the MLP."""
    dense_heads: int
    dense_kv_heads: int
    dense_width: int
    sparsity: dict[str, float]
    """Fraction of weights that are zero, by the site's path in the block, e.g. `mlp.up_proj`."""

    @property
    def is_cut(self) -> bool:
        """Whether it has lost heads or neurons."""
        dense = self.dense_heads, self.dense_kv_heads, self.dense_width
        return (self.heads, self.kv_heads, self.width) != dense

    @property
    def is_masked(self) -> bool:
        """Whether weights of it have been set to zero."""
        return any(share >= NOTICED for share in self.sparsity.values())


@dataclass(frozen=True)
class Asked:
    """One method: the budget that was asked for, and what it came to."""

    method: str
    asked: str
    done: str


@dataclass(frozen=True)
class Differing:
    """An image whose class the model names otherwise than when it was dense."""

    picture: str
    """A PNG, as a data URI."""
    label: str
    """Its class."""
    said: dict[str, str]
    """By stage, the class that the model names."""


@dataclass(frozen=True)
class Report:
    """Everything a reader of the run wants to know, without the run.

    The table looks up "length" (tokens in a window), "validation_windows" (how many), "unit"
    ("images" of a classifier), "device" and "dtype" in `settings` and shows those that are there;
    other settings are only stored.
    """

    model: str
    """What it is called; where it lies is part of the configuration."""
    method: str
    created: str
    """ISO 8601 time."""
    stages: dict[str, StageMetrics] = field(default_factory=dict)
    """By name, in order: "dense", "pruned", "recovered", as far as the run went."""
    blocks: list[BlockShape] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    """How it was measured and what was asked: window length, device, dtype, ratios."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the libraries, by name."""
    files: dict[str, str] = field(default_factory=dict)
    """What the run wrote, by what it is."""

    asked: list[Asked] = field(default_factory=list)
    """For each method, in their order."""
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """More that was measured, by stage: other texts, tasks, generations, speed."""
    differing: list[Differing] = field(default_factory=list)
    """Of a classifier of images, some on which its stages differ."""
    importance: dict[str, dict[int, float]] = field(default_factory=dict)
    """By how it was measured: one number a block, by the block's place in the dense model."""
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Of the training, by what was logged: steps and values."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long the parts of the run took, by what was done, in their order."""
    configuration: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Arguments of the model, the data and the trainer, and the text of each use."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Hashes, seeds and sources, by what they are of."""

    def to_json(self) -> str:
        """The report as JSON; infinite and undefined numbers become strings, as JSON has none."""
        return as_json(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is not JSON or not a report.
        """
        value = json.loads(text)
        try:
            stages = {name: _stage(stage) for name, stage in value.pop("stages").items()}
            blocks = [BlockShape(**block) for block in value.pop("blocks")]
            value["asked"] = [Asked(**asked) for asked in value.get("asked", ())]
            value["evaluations"] = {
                stage: Evaluation.from_dict(evaluation)
                for stage, evaluation in value.get("evaluations", {}).items()
            }
            value["differing"] = [Differing(**one) for one in value.get("differing", ())]
            value["importance"] = {
                name: {int(index): float(number) for index, number in row.items()}
                for name, row in value.get("importance", {}).items()
            }
            value["curves"] = {
                name: [(int(step), float(number)) for step, number in points]
                for name, points in value.get("curves", {}).items()
            }
            return cls(stages=stages, blocks=blocks, **value)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"this JSON is not a report of lightning_prune: {error}") from error


def _stage(value: dict[str, Any]) -> StageMetrics:
    for name in ("perplexity", "tokens_per_second", "accuracy", "top5"):
        if value.get(name) is not None:
            value[name] = float(value[name])  # "inf" and "nan" come as strings
    return StageMetrics(**value)
