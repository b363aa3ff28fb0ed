"""What the store keeps, one class a table; the fields of a class are the table's columns.

A `Run` is one model that was looked at once: what was asked, and the rows of all other tables that
belong to it. docs/analysis.md says what each column is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lightning_prune.version import __version__

__all__ = [
    "Circuit",
    "Curve",
    "Evaluation",
    "Held",
    "Matrix",
    "Member",
    "PlanStep",
    "Recovery",
    "Row",
    "Run",
    "Score",
    "Similarity",
]


@dataclass(frozen=True)
class Row:
    """A row of a table beside `runs`; the store adds the number of its run."""

    table: ClassVar[str]


@dataclass(frozen=True)
class PlanStep(Row):
    """One method's decisions; counts are of units, `masked` and `zeros` of weights with a mask."""

    table: ClassVar[str] = "plans"

    step: int
    method: str
    call: str
    model: str | None = None
    calibration: str | None = None
    """SHA-256 of the calibration tokens."""
    fingerprint: str | None = None
    """SHA-256 of what all steps together decide."""
    masked: int = 0
    zeros: int = 0
    groups: int = 0
    groups_gone: int = 0
    neurons: int = 0
    neurons_gone: int = 0
    blocks: int = 0
    blocks_gone: int = 0


@dataclass(frozen=True)
class Matrix(Row):
    """One matrix of a block at one stage: its shape, zeros and norm."""

    table: ClassVar[str] = "matrices"

    stage: str
    """"dense", "pruned" or "recovered" of a run; "model" of a model that was looked at."""
    name: str
    block: int
    kind: str
    """Its place in the block, such as "mlp.down_proj"."""
    rows: int
    inputs: int
    zeros: int
    row_min: float
    row_max: float
    """Fraction of zeros in the rows with the fewest and the most."""
    norm: float
    """Frobenius norm."""


@dataclass(frozen=True)
class Held(Row):
    """The fraction of a matrix's groups that hold to a pattern N:M (N kept of M)."""

    table: ClassVar[str] = "patterns"

    stage: str
    name: str
    pattern: str
    held: float


@dataclass(frozen=True)
class Score(Row):
    """How the scores of a matrix, or of a block's units, are spread, where they were kept."""

    table: ClassVar[str] = "scores"

    kind: str
    """"weight", "neuron" or "group"."""
    name: str
    """Of the matrix, or the number of the block."""
    count: int
    mean: float
    std: float
    min: float
    q01: float
    q05: float
    q25: float
    q50: float
    q75: float
    q95: float
    q99: float
    max: float


@dataclass(frozen=True)
class Similarity(Row):
    """One number that says how alike two things are, of all of them or of one matrix."""

    table: ClassVar[str] = "similarities"

    a: str
    b: str
    what: str
    """What was compared: "masks", "weights", "scores", "circuits" …"""
    measure: str
    """"jaccard", "cosine", "hamming", "spearman" …"""
    value: float | None
    std: float | None = None
    """Over the features, where the value is a mean over features."""
    by_chance: float | None = None
    name: str | None = None
    """Of the matrix; None: over all."""
    block: int | None = None
    kind: str | None = None
    count: int | None = None
    """Of so many of the first members; None: of all."""


@dataclass(frozen=True)
class Evaluation(Row):
    """One number that was measured of a model at one stage."""

    table: ClassVar[str] = "evaluations"

    stage: str
    metric: str
    """"perplexity", "acc", "parameters", "decode_tokens_per_second" …"""
    value: float | None
    stderr: float | None = None
    task: str | None = None
    """The text, the task, or what else it was measured on."""
    split: str | None = None
    length: int | None = None
    """Tokens in a window, or of a prompt."""
    samples: int | None = None
    """Windows or examples."""
    few_shot: int | None = None
    batch_size: int | None = None
    block: int | None = None
    """Of a number that each block has, such as its importance."""


@dataclass(frozen=True)
class Recovery(Row):
    """The training after pruning, and what it brought back."""

    table: ClassVar[str] = "recoveries"

    adapter: str | None
    steps: int
    dense: float | None
    pruned: float | None
    recovered: float | None
    """Perplexities at the three stages, on the same windows."""
    train_loss: float | None
    """The last that was logged."""
    seconds: float | None
    revived: int | None = None
    """Planned zeros that are none any more."""


@dataclass(frozen=True)
class Curve(Row):
    """One point of what was logged while training."""

    table: ClassVar[str] = "curves"

    name: str
    step: int
    value: float | None


@dataclass(frozen=True)
class Circuit(Row):
    """The model without so many parts of a list; ends of intervals are of 95%."""

    table: ClassVar[str] = "circuits"

    name: str
    """"circuit", a control such as "random", or "dense": nothing is removed."""
    kind: str
    count: int
    perplexity: float | None
    rate: float
    rate_low: float
    rate_high: float
    score: float
    unique_tokens: float
    draw: int = 1
    """Which of several draws, of random parts."""


@dataclass(frozen=True)
class Member(Row):
    """One part of a circuit: a unit of a block, or one weight of a matrix, by row and input."""

    table: ClassVar[str] = "members"

    rank: int
    kind: str
    name: str
    """The number of the block, or the name of the matrix."""
    place: int
    """The number of the unit, or the row."""
    input: int | None = None
    score: float | None = None


@dataclass(frozen=True)
class Run:
    """One model that was looked at once.

    Attributes:
        command: what looked at it.
        model: what it is called; None: several were compared.
        method: the class of the method that pruned it; of several, joined by "+"; None: unknown, or
            nothing was pruned.
        call: the method with what it was told other than its defaults.
        sparsity, pattern, ratio: what was asked of the (last) method.
        folder: what the run has written lies there.
        device, dtype: where, and of what numbers.
        seconds: that it took.
        error: why there is no result; None: there is one.
        settings: everything else that it was made with.
        version: of this package.
        rows: of the other tables.
    """

    table: ClassVar[str] = "runs"

    command: str
    model: str | None
    method: str | None = None
    call: str | None = None
    sparsity: float | None = None
    pattern: str | None = None
    ratio: float | None = None
    folder: str | None = None
    device: str | None = None
    dtype: str | None = None
    seconds: float | None = None
    error: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__
    rows: Sequence[Row] = ()

    @property
    def target(self) -> str | None:
        """What was asked, in a word: "2:4", or "0.5"."""
        asked = self.pattern or next(
            (v for v in (self.sparsity, self.ratio) if v is not None), None
        )
        return None if asked is None else str(asked)
