"""How alike circuits and attributions are: members, ranks, chance, and what is refused.

Axes: U units of one block.
"""

from __future__ import annotations

import json
import math
from itertools import combinations
from typing import Any

import pytest
import torch

from lightning_prune.analysis import circuits as analysis
from lightning_prune.analysis.circuits import CircuitReport, compare_circuits
from lightning_prune.analysis.statistics import expected_jaccard
from lightning_prune.attribution.attributions import Attributions
from lightning_prune.attribution.circuits import CircuitUnits

UNITS, BLOCKS = 40, 3


def attributed(seed: int, kind: Any = "neuron", units: int = UNITS) -> Attributions:
    generator = torch.Generator().manual_seed(seed)
    shape = (units, 2) if kind == "weight" else (units,)
    numbers = [torch.randint(-9, 9, shape, generator=generator) for _ in range(BLOCKS)]
    return Attributions(kind, {str(i): number.float() for i, number in enumerate(numbers)})


def drawn(*seeds: int, count: int = 30, kind: Any = "neuron") -> dict[str, CircuitUnits]:
    return {
        f"seed {seed}": CircuitUnits.random(attributed(0, kind), count + seed, seed)
        for seed in seeds
    }


@pytest.mark.parametrize("kind", ["neuron", "weight"])
@pytest.mark.parametrize("seeds", [(1, 2), (1, 2, 3), (1, 2, 3, 4)])
def test_members_are_shared_as_sets_are(kind: Any, seeds: tuple[int, ...]) -> None:
    """Two by two, in each region of two or three circles, and block by block."""
    circuits = drawn(*seeds, kind=kind)
    [overlap] = compare_circuits(circuits).members
    sets = {name: set(circuit.members) for name, circuit in circuits.items()}
    assert overlap.sizes == {name: len(members) for name, members in sets.items()}
    for pair, (a, b) in zip(overlap.pairs, combinations(sets, 2), strict=True):
        assert (pair.a, pair.b, pair.both) == (a, b, len(sets[a] & sets[b]))
        assert pair.jaccard == len(sets[a] & sets[b]) / len(sets[a] | sets[b])
    for names, count in overlap.regions.items():
        inside = set.intersection(*(sets[name] for name in names))
        outside = set().union(*(sets[name] for name in sets if name not in names))
        assert count == len(inside - outside)
    assert len(overlap.regions) == (2 ** len(seeds) - 1 if len(seeds) < 4 else 0)
    everywhere = set.intersection(*sets.values())
    assert list(overlap.blocks) == sorted(overlap.blocks)
    for key, block in overlap.blocks.items():
        assert block.shared == sum(member[0] == key for member in everywhere)
        assert block.sizes == {n: sum(m[0] == key for m in s) for n, s in sets.items()}


def test_the_first_of_circuits_are_compared_where_asked() -> None:
    """The most telling stand first."""
    circuits = drawn(1, 2)
    report = compare_circuits(circuits, counts=[20, 5])
    assert [overlap.count for overlap in report.members] == [5, 20]
    first, second = (set(circuit.members[:5]) for circuit in circuits.values())
    assert report.members[0].pairs[0].both == len(first & second)
    assert report.correlations == {}


def test_attributions_correlate_by_ranks_over_all_parts() -> None:
    """Equal values share a rank."""
    stats = pytest.importorskip("scipy.stats")
    compared = {f"seed {seed}": attributed(seed) for seed in range(3)}
    report = compare_circuits(compared, counts=[10])
    for (a, b), correlation in report.correlations.items():
        values = [torch.cat(list(compared[name].values.values())) for name in (a, b)]
        assert correlation == pytest.approx(stats.spearmanr(*values).statistic)
    assert len(report.correlations) == 3


def test_the_lowest_of_attributions_are_compared_for_every_count() -> None:
    """As circuits of so many members would be."""
    compared = {name: Attributions("neuron", {"3": torch.randperm(50).float()}) for name in "ab"}
    report = compare_circuits(compared, counts=[7, 20])
    for overlap in report.members:
        assert overlap.count is not None
        lowest = {n: CircuitUnits.lowest(a, overlap.count) for n, a in compared.items()}
        alone = compare_circuits(lowest).members[0]
        assert (overlap.pairs, overlap.regions, overlap.blocks) == (
            alone.pairs,
            alone.regions,
            alone.blocks,
        )
    assert [o.count for o in compare_circuits(compared).members] == [10]  # of 10 and 100


@pytest.mark.parametrize(("a", "b", "total"), [(2, 3, 6), (4, 5, 6), (1, 6, 6), (3, 3, 7)])
def test_chance_is_the_mean_over_all_sets(a: int, b: int, total: int) -> None:
    """Of these sizes, each as likely as any other."""
    first = set(range(a))
    others = [set(other) for other in combinations(range(total), b)]
    mean = sum(len(first & other) / len(first | other) for other in others) / len(others)
    assert expected_jaccard(a, b, total) == pytest.approx(mean)


def test_random_circuits_are_as_alike_as_by_chance() -> None:
    """Out of how many parts they were drawn is in their facts."""
    report = compare_circuits(drawn(*range(12)))
    pairs = report.members[0].pairs
    assert report.parts == UNITS * BLOCKS
    found = sum(pair.jaccard for pair in pairs) / len(pairs)
    expected = [pair.jaccard_by_chance for pair in pairs if pair.jaccard_by_chance is not None]
    assert len(expected) == len(pairs)
    assert found == pytest.approx(sum(expected) / len(expected), abs=0.02)


def test_chance_is_unknown_of_a_list_by_hand() -> None:
    by_hand = {
        name: CircuitUnits("neuron", [("0", 1), ("0", i)]) for i, name in ((2, "a"), (3, "b"))
    }
    report = compare_circuits(by_hand)
    assert report.parts is None
    assert report.members[0].pairs[0].jaccard_by_chance is None
    assert report.members[0].pairs[0].jaccard == pytest.approx(1 / 3)


def test_blocks_stand_in_the_order_of_the_model() -> None:
    """Block 10 behind block 2."""
    circuit = CircuitUnits("neuron", [("10", 0), ("2", 0), ("0", 5)])
    [overlap] = compare_circuits({"a": circuit, "b": circuit}).members
    assert list(overlap.blocks) == ["0", "2", "10"]


def test_what_is_constant_has_no_correlation() -> None:
    flat = Attributions("neuron", {str(i): torch.zeros(UNITS) for i in range(BLOCKS)})
    report = compare_circuits({"flat": flat, "seed": attributed(1)})
    assert math.isnan(report.correlations["flat", "seed"])


def test_everything_is_in_the_value_for_json() -> None:
    report: CircuitReport = compare_circuits(drawn(1, 2, 3))
    found = json.loads(json.dumps(report.to_dict()))
    assert found["names"] == ["seed 1", "seed 2", "seed 3"]
    regions = {tuple(r["in"]): r["count"] for r in found["members"][0]["regions"]}
    assert regions == report.members[0].regions
    assert found["members"][0]["pairs"][0]["both"] == report.members[0].pairs[0].both


# --- what cannot be compared ---


@pytest.mark.parametrize(
    ("compared", "counts", "message"),
    [
        ({}, None, r"circuits or attributions given: 0 \(none\); two or more"),
        (drawn(1), None, r"given: 1 \(seed 1\); two or more can be compared"),
        (
            drawn(1) | {"b": attributed(0)},
            None,
            "seed 1 is a circuit of neurons and b an attribution of neurons; compare circuits with",
        ),
        (
            drawn(1) | {"b": CircuitUnits("group", [("0", 1)])},
            None,
            "seed 1 is a circuit of neurons and b a circuit of groups",
        ),
        (
            {"a": attributed(0), "b": attributed(0, units=9)},
            None,
            r"a and b: attributions of neurons \(3 tensors, 0 \(40,\)\) and of neurons .* \(9,\)\)",
        ),
        (
            drawn(1) | {"b": CircuitUnits.random(attributed(0, units=9), 3, 0)},
            None,
            "chosen out of different parts: seed 1 out of 120, b out of 27. Compare circuits of",
        ),
        (drawn(1) | {"b": CircuitUnits("neuron", [])}, None, "b has no members; give circuits"),
        (drawn(1, 2), [10, 32], r"counts=\[10, 32\] is not allowed: seed 1 has 31 neurons; counts"),
        ({"a": attributed(0), "b": attributed(1)}, [0], "whole numbers from 1 to 120"),
        ({"a": attributed(0), "b": attributed(1)}, [], r"counts=\[\] is not allowed"),
    ],
)
def test_what_does_not_go_together_is_refused(
    compared: dict[str, Any], counts: list[int] | None, message: str, monkeypatch: Any
) -> None:
    """In one line, before anything is ranked."""
    monkeypatch.setattr(analysis, "average_ranks", None)
    with pytest.raises(ValueError, match=message) as error:
        compare_circuits(compared, counts)
    assert "\n" not in str(error.value)
