"""How alike masks are: Jaccard, cosine and Hamming, by feature, matrix, block and projection.

With a and b weights that stay in the one mask and the other, out of n, and c in both:

    Jaccard = c / (a + b - c),  cosine = c / √(a b),  Hamming = (a + b - 2c) / n

Jaccard and cosine are 0 where they would be 0 / 0. The cosine of the weights themselves is given
beside that of the masks, where both have weights.

A feature is a row of down_proj and a column of any other matrix, as in the code that these
definitions are from: https://github.com/dat-adi/sparsity_characterization, similarity_metrics.py.

Axes: O output features, I input features, F features of a matrix.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from lightning_prune.analysis.keys import ALL, place_of
from lightning_prune.analysis.masks import Masks, shared_names
from lightning_prune.analysis.overlap_counts import Tally, counted, metrics_of, ratio
from lightning_prune.checks import check_choice

__all__ = ["METRICS", "Axis", "Similarity", "SimilarityReport", "compare_masks", "is_by_rows"]

Axis = Literal["auto", "rows", "columns"]
METRICS = ("jaccard", "cosine", "hamming", "value_cosine")
THREADS = 2
"""How many matrices are read side by side; more do not help, and each takes its memory."""
LEVELS = ("all", "projection", "block", "matrix")


@dataclass(frozen=True)
class Similarity:
    """How alike two masks are in one place.

    Attributes:
        a, b: what is compared, by name.
        level: "all", "projection", "block" or "matrix".
        place: "all", the projection, the block's number, or the matrix's name.
        weights: how many there are.
        nonzero_a, nonzero_b, both: how many stay in the one, the other, and both.
        jaccard, cosine, hamming: of the masks as a whole.
        jaccard_by_chance: what Jaccard would be about if as many weights of each matrix were
            chosen at random.
        value_cosine: cosine of the weights; None: one of the two is a plan, which has none.
        features: how many rows or columns there are.
        means, deviations: of each metric over the features, the deviation that of all (not of a
            sample); those of `value_cosine` are left out where it is None.
    """

    a: str
    b: str
    level: str
    place: str
    weights: int
    nonzero_a: int
    nonzero_b: int
    both: int
    jaccard: float
    jaccard_by_chance: float
    cosine: float
    hamming: float
    value_cosine: float | None
    features: int
    means: Mapping[str, float]
    deviations: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        """A flat row of plain values, for a table."""
        row = {name: value for name, value in vars(self).items() if not isinstance(value, Mapping)}
        for name in METRICS:
            row[f"{name}_mean"] = self.means.get(name)
            row[f"{name}_deviation"] = self.deviations.get(name)
        return row


@dataclass(frozen=True)
class SimilarityReport:
    """How alike two or more masks are.

    Attributes:
        names: what was compared, by path.
        axis: whose features: "auto", "rows" or "columns".
        similarities: of every two, in every place, the whole first.
        notes: what a reader must know of them, in sentences.
        bytes: how much was read.
        features: if they were kept, each metric by feature, (F,), by names of the two and of the
            matrix.
    """

    names: Mapping[str, str]
    axis: Axis
    similarities: Sequence[Similarity]
    notes: Sequence[str]
    bytes: int
    features: Mapping[tuple[str, str, str], Mapping[str, np.ndarray]] = field(
        default_factory=dict, repr=False
    )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The names of every two."""
        return list(combinations(self.names, 2))

    def select(self, level: str, pair: tuple[str, str] | None = None) -> list[Similarity]:
        """The similarities of a level, of all pairs or of one."""
        found = [s for s in self.similarities if s.level == level]
        return [s for s in found if pair is None or (s.a, s.b) == pair]

    def records(self) -> list[dict[str, Any]]:
        """Flat rows of plain values, one for each pair and place, for a table or a database."""
        return [similarity.record() for similarity in self.similarities]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can say it, but for features."""
        return {
            "compared": dict(self.names),
            "axis": self.axis,
            "notes": list(self.notes),
            "bytes": self.bytes,
            "similarities": self.records(),
        }


def compare_masks(
    sources: Mapping[str, str | Path],
    axis: Axis = "auto",
    include: Sequence[str] = ("*",),
    *,
    keep_features: bool = False,
) -> SimilarityReport:
    """Compare which weights stay in two or more checkpoints or plans of one model.

    ```python
    report = compare_masks({"wanda": "runs/wanda/pruned", "magnitude": "runs/magnitude/plan"})
    report.select("all")[0].jaccard, report.records()
    ```

    Every matrix is read once, and two of each checkpoint are in memory at a time.

    Args:
        sources: paths as `Masks` takes them, by what they are to be called.
        axis: features are "rows" or "columns" of matrices; "auto": rows of down_proj and of units,
            columns of all others.
        include: patterns of names of matrices.
        keep_features: keep the metrics of every feature.

    Raises:
        FileNotFoundError: there is no model or plan.
        ValueError: fewer than two, no such axis, no matrix in common, or other shapes or numbers of
            blocks.
    """
    check_choice("axis", axis, get_args(Axis))
    if len(sources) < 2:
        raise ValueError(f"masks are compared by twos, and {len(sources)} are given")
    opened = {name: Masks(path) for name, path in sources.items()}
    _check_blocks(opened)
    shapes = shared_names(list(opened.values()), include)
    pairs = list(combinations(opened, 2))
    tallies: dict[tuple[str, str], dict[tuple[str, str], Tally]] = {pair: {} for pair in pairs}
    features: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}
    for name, counts in _counted(opened, shapes, axis):
        for pair, counts_NF in counts.items():
            valued = all(opened[n].has_values for n in pair)
            metrics = metrics_of(counts_NF, valued)
            if keep_features:
                features[pair[0], pair[1], name] = metrics
            tally = Tally.of(counts_NF, metrics)
            for place in _places(name):
                before = tallies[pair].get(place)
                tallies[pair][place] = tally if before is None else before + tally
    similarities = [
        _similarity(pair, place, tallies[pair][place])
        for pair in pairs
        for place in sorted(tallies[pair], key=lambda p: LEVELS.index(p[0]))
    ]
    return SimilarityReport(
        {name: str(path) for name, path in sources.items()},
        axis,
        similarities,
        _notes(opened, shapes, similarities),
        sum(source.bytes(name) for source in opened.values() for name in shapes),
        features,
    )


def _check_blocks(sources: Mapping[str, Masks]) -> None:
    """Blocks are told apart by their numbers, which are others where some were taken out."""
    counts = {name: source.blocks for name, source in sources.items() if source.blocks}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} has {count} block(s)" for name, count in counts.items())
        raise ValueError(
            f"{found}: where blocks were taken out, those of one number are not the same. Compare "
            "models that have all blocks, or plans"
        )


def _counted(
    sources: Mapping[str, Masks], names: Iterable[str], axis: Axis
) -> Iterator[tuple[str, dict[tuple[str, str], np.ndarray]]]:
    """Matrices in order, with what is counted of them; NumPy lets threads work side by side."""

    def count(name: str) -> tuple[str, dict[tuple[str, str], np.ndarray]]:
        return name, counted(sources, name, 1 if is_by_rows(name, axis) else 0)

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(count, names)


def is_by_rows(name: str, axis: Axis) -> bool:
    """Whether features of a matrix are its rows."""
    is_row = name.endswith("down_proj.weight") or not name.endswith(".weight")
    return is_row if axis == "auto" else axis == "rows"


def _places(name: str) -> Iterator[tuple[str, str]]:
    """What a matrix is a part of."""
    place = place_of(name)
    assert place is not None
    block, projection = place
    yield from (("all", ALL), ("projection", projection), ("block", str(block)), ("matrix", name))


def _similarity(pair: tuple[str, str], place: tuple[str, str], tally: Tally) -> Similarity:
    weights, a, b, both = tally.counts_N[:4]
    whole = {
        name: float(value)
        for name, value in metrics_of(tally.counts_N, "value_cosine" in tally.sums).items()
    }
    means = {name: total / tally.features for name, (total, _) in tally.sums.items()}
    deviations = {
        name: max(squares / tally.features - means[name] ** 2, 0.0) ** 0.5
        for name, (_, squares) in tally.sums.items()
    }
    return Similarity(
        a=pair[0],
        b=pair[1],
        level=place[0],
        place=place[1],
        weights=int(weights),
        nonzero_a=int(a),
        nonzero_b=int(b),
        both=int(both),
        jaccard=whole["jaccard"],
        jaccard_by_chance=float(ratio(tally.chance, a + b - tally.chance)),
        cosine=whole["cosine"],
        hamming=whole["hamming"],
        value_cosine=whole.get("value_cosine"),
        features=tally.features,
        means=means,
        deviations=deviations,
    )


def _notes(
    sources: Mapping[str, Masks], shapes: Mapping[str, object], found: Sequence[Similarity]
) -> list[str]:
    """What was left out, and which masks have nothing to compare."""
    notes = []
    for name, source in sources.items():
        left_out = len(set(source.shapes) - set(shapes))
        if left_out:
            notes.append(f"{name}: {left_out} of its matrices are not compared")
        kept = {
            s.place: s.nonzero_a if name == s.a else s.nonzero_b
            for s in found
            if name in (s.a, s.b) and s.level == "matrix"
        }
        sizes = {s.place: s.weights for s in found if s.level == "matrix"}
        empty = [place for place, count in kept.items() if not count]
        full = [place for place, count in kept.items() if count == sizes[place]]
        if empty:
            notes.append(
                f"{name}: all weights are zero in {_some(empty, kept)}; Jaccard and cosine are 0 "
                "there"
            )
        if full:
            notes.append(
                f"{name}: no weight is zero in {_some(full, kept)}: nothing is masked there"
            )
    return notes


def _some(places: Sequence[str], every: Mapping[str, object]) -> str:
    if 1 < len(places) == len(every):
        return f"all {len(every)} matrices"
    more = f" and {len(places) - 1} more of {len(every)} matrices" if len(places) > 1 else ""
    return f"{places[0]}{more}"
