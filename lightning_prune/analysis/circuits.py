"""How alike circuits of one model are, or attributions, which circuits are the lowest of.

Axes: N parts of a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from lightning_prune.analysis.keys import in_order
from lightning_prune.analysis.statistics import (
    SAMPLE,
    average_ranks,
    expected_jaccard,
    pearson,
    sampled,
)
from lightning_prune.attribution.attributions import Attributions, Kind
from lightning_prune.attribution.circuits import CircuitUnits

__all__ = [
    "COUNTS",
    "BlockOverlap",
    "CircuitReport",
    "MemberOverlap",
    "PairOverlap",
    "compare_circuits",
]

COUNTS = (10, 100)
"""How many of the lowest parts are compared where nothing is said."""
MOST_CIRCLES = 3
"""Of more circuits, pairs are compared alone."""

Compared = CircuitUnits | Attributions


@dataclass(frozen=True)
class PairOverlap:
    """The members that two circuits share.

    Attributes:
        a, b: what the circuits are called.
        size_a, size_b: how many members each has.
        both: how many are in both.
        jaccard: in both, of what is in either.
        jaccard_by_chance: its mean over sets of these sizes, drawn at random out of all parts;
            None: it is not known how many there are.
    """

    a: str
    b: str
    size_a: int
    size_b: int
    both: int
    jaccard: float
    jaccard_by_chance: float | None


@dataclass(frozen=True)
class BlockOverlap:
    """The members that are in one block, or of one matrix.

    Attributes:
        sizes: how many each circuit has there, by its name.
        shared: how many are in all circuits.
    """

    sizes: Mapping[str, int]
    shared: int


@dataclass(frozen=True)
class MemberOverlap:
    """The members that circuits share.

    Attributes:
        count: so many of each were compared, the most telling; None: all.
        sizes: how many members each has, by its name.
        pairs: every two of them.
        regions: of two or three circuits, how many members are in just these, by their names.
        blocks: by the index of a block, or the name of a matrix; those with members alone.
    """

    count: int | None
    sizes: Mapping[str, int]
    pairs: Sequence[PairOverlap]
    regions: Mapping[tuple[str, ...], int]
    blocks: Mapping[str, BlockOverlap]


@dataclass(frozen=True)
class CircuitReport:
    """How alike circuits are, or attributions.

    Attributes:
        kind: of what parts.
        names: what was compared.
        parts: out of how many parts; None: unknown.
        members: what circuits share; of attributions, and with counts, one for each count.
        correlations: Spearman's of two attributions over all parts, by their names; NaN where one
            is constant. Empty: circuits were compared.
    """

    kind: Kind
    names: Sequence[str]
    parts: int | None
    members: Sequence[MemberOverlap]
    correlations: Mapping[tuple[str, str], float]

    @property
    def what(self) -> str:
        """One of what was compared."""
        return "attribution" if self.correlations else "circuit"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can say it."""
        correlations = [{"of": names, "spearman": r} for names, r in self.correlations.items()]
        members = [
            asdict(overlap)
            | {"regions": [{"in": names, "count": n} for names, n in overlap.regions.items()]}
            for overlap in self.members
        ]
        return {
            "compared": self.what,
            "kind": self.kind,
            "names": list(self.names),
            "parts": self.parts,
            "sample": SAMPLE,
            "correlations": correlations,
            "members": members,
        }


def compare_circuits(
    compared: Mapping[str, Compared], counts: Sequence[int] | None = None
) -> CircuitReport:
    """Compare circuits of one model by their members, or attributions by ranks and their lowest.

    Of more than four million parts, correlations are of a sample, always the same one.

    Args:
        compared: by what each is called.
        counts: so many members are compared, the lowest of attributions or the first of circuits;
            None: of attributions as many as COUNTS says and there are, of circuits all.

    Raises:
        ValueError: there are fewer than two, they are not of one sort, kind and model, or have not
            so many members.
    """
    parts = _check_alike(compared)
    asked = _checked_counts(compared, counts)
    attributions = {n: value for n, value in compared.items() if isinstance(value, Attributions)}
    circuits = {n: value for n, value in compared.items() if isinstance(value, CircuitUnits)}
    circuits |= {n: CircuitUnits.lowest(ranked, asked[-1]) for n, ranked in attributions.items()}
    members = [
        _shared({name: circuit.first(count) for name, circuit in circuits.items()}, count, parts)
        for count in asked
    ] or [_shared(circuits, None, parts)]
    kind = next(iter(compared.values())).kind
    return CircuitReport(kind, list(compared), parts, members, _correlations(attributions))


# --- comparing ---


def _correlations(compared: Mapping[str, Attributions]) -> dict[tuple[str, str], float]:
    ranks = {
        name: average_ranks(sampled([ranked.values[key] for key in sorted(ranked.values)]))
        for name, ranked in compared.items()
    }
    return {(a, b): pearson(ranks[a], ranks[b]) for a, b in combinations(compared, 2)}


def _shared(
    circuits: Mapping[str, CircuitUnits], count: int | None, parts: int | None
) -> MemberOverlap:
    members = {name: set(circuit.members) for name, circuit in circuits.items()}
    owners: dict[tuple[Any, ...], tuple[str, ...]] = {}  # of each member
    for name, listed in members.items():
        for member in listed:
            owners[member] = (*owners.get(member, ()), name)
    regions: dict[tuple[str, ...], int] = {}
    if len(circuits) <= MOST_CIRCLES:
        for size in range(1, len(circuits) + 1):
            regions |= dict.fromkeys(combinations(circuits, size), 0)
        for names in owners.values():
            regions[names] += 1
    pairs = [_pair(a, b, members[a], members[b], parts) for a, b in combinations(circuits, 2)]
    sizes = {name: len(listed) for name, listed in members.items()}
    return MemberOverlap(count, sizes, pairs, regions, _blocks(owners, list(circuits)))


def _pair(
    a: str,
    b: str,
    members_a: set[tuple[Any, ...]],
    members_b: set[tuple[Any, ...]],
    parts: int | None,
) -> PairOverlap:
    sizes, both = (len(members_a), len(members_b)), len(members_a & members_b)
    chance = None if parts is None else expected_jaccard(*sizes, parts)
    return PairOverlap(a, b, *sizes, both, both / (sum(sizes) - both), chance)


def _blocks(
    owners: Mapping[tuple[Any, ...], tuple[str, ...]], names: Sequence[str]
) -> dict[str, BlockOverlap]:
    counts: dict[str, dict[str, int]] = {}
    shared: dict[str, int] = {}
    for (key, *_), having in owners.items():
        sizes = counts.setdefault(key, dict.fromkeys(names, 0))
        for name in having:
            sizes[name] += 1
        shared[key] = shared.get(key, 0) + (len(having) == len(names))
    return {key: BlockOverlap(counts[key], shared[key]) for key in in_order(counts)}


# --- what cannot be compared ---


def _check_alike(compared: Mapping[str, Compared]) -> int | None:
    """Refuse what does not go together; how many parts there are, or None if nothing says so."""
    if len(compared) < 2:
        raise ValueError(
            f"circuits or attributions given: {len(compared)} ({', '.join(compared) or 'none'}); "
            "two or more can be compared"
        )
    (first, one), *others = compared.items()
    for name, other in others:
        if type(one) is not type(other) or one.kind != other.kind:
            raise ValueError(
                f"{first} is {_said(one)} and {name} {_said(other)}; compare circuits with "
                "circuits, or attributions with attributions, of parts of one kind"
            )
        if isinstance(one, Attributions) and isinstance(other, Attributions):
            try:
                one.check_alike(other)
            except ValueError as error:
                raise ValueError(f"{first} and {name}: {error}") from error
    known = {name: parts for name, value in compared.items() if (parts := _parts(value))}
    if len(set(known.values())) > 1:
        chosen = ", ".join(f"{name} out of {parts:,}" for name, parts in known.items())
        raise ValueError(
            f"the circuits were chosen out of different parts: {chosen}. Compare circuits of one "
            "model, and of the same blocks or Linears of it."
        )
    return next(iter(known.values()), None)


def _checked_counts(compared: Mapping[str, Compared], counts: Sequence[int] | None) -> list[int]:
    """How many members are compared, from few to many; none: all of circuits."""
    sizes = {name: _size(value) for name, value in compared.items()}
    shortest = min(sizes, key=lambda name: sizes[name])
    most, value = sizes[shortest], compared[shortest]
    if not most:
        raise ValueError(f"{shortest} has no members; give circuits with one or more")
    if counts is None and isinstance(value, CircuitUnits):
        return []
    asked = [count for count in COUNTS if count < most] if counts is None else counts
    if not asked or any(not isinstance(n, int) or not 1 <= n <= most for n in asked):
        raise ValueError(
            f"counts={list(asked)} is not allowed: {shortest} has {most:,} {value.kind}s; counts "
            f"are whole numbers from 1 to {most:,}"
        )
    return sorted(set(asked))


def _size(value: Compared) -> int:
    return value.count if isinstance(value, Attributions) else len(set(value.members))


def _parts(value: Compared) -> int | None:
    if isinstance(value, Attributions):
        return value.count
    parts = value.facts.get("parts")
    return parts if isinstance(parts, int) else None


def _said(value: Compared) -> str:
    sort = "an attribution" if isinstance(value, Attributions) else "a circuit"
    return f"{sort} of {value.kind}s"
