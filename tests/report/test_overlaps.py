"""What circuits share, as it is printed and drawn: it is true, and it can be read."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from lightning_prune.analysis.circuits import CircuitReport, compare_circuits
from lightning_prune.attribution.attributions import Attributions
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.report.overlap_plots import letters, pair_map, venn
from lightning_prune.report.overlaps import overlaps_document
from lightning_prune.report.page_style import STYLE
from lightning_prune.report.plots import Plot
from lightning_prune.report.svg import width_of

SHAPES = {"0": torch.zeros(500), "1": torch.zeros(500)}


def circuits(count: int, name: str = "set {}") -> CircuitReport:
    like = Attributions("neuron", SHAPES)
    return compare_circuits(
        {name.format(i): CircuitUnits.random(like, 200 + i, i) for i in range(count)}
    )


def attributions(count: int) -> CircuitReport:
    generator = torch.Generator().manual_seed(0)
    return compare_circuits(
        {
            f"set {i}": Attributions(
                "neuron", {k: torch.randn(v.shape, generator=generator) for k, v in SHAPES.items()}
            )
            for i in range(count)
        }
    )


def parts(plot: Plot, kind: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(f"<svg>{''.join(plot.body)}</svg>")
    return [e for e in root.iter() if e.tag == kind or kind in e.get("class", "").split()]


def boxes(plot: Plot) -> list[tuple[float, float, float, float]]:
    """Where the words of a plot stand: left, upper, right and lower edge."""
    found = []
    for element in parts(plot, "text"):
        size = float(element.get("font-size", "11"))
        x, y = float(element.get("x", "")), float(element.get("y", ""))
        width = width_of(element.text or "", size)
        left = x - width * {"middle": 0.5, "end": 1.0}.get(element.get("text-anchor", ""), 0.0)
        found.append((left, y - 0.8 * size, left + width, y + 0.2 * size))
    return found


def assert_words_have_room(plot: Plot) -> None:
    """None on another, none outside."""
    found = boxes(plot)
    for left, upper, right, lower in found:
        assert left >= -0.1
        assert upper >= -0.1
        assert right <= plot.width
        assert lower <= plot.height
    for a, b in combinations(found, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{a} and {b}"


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("size", [0, 7, 1234, 12_345_678])
def test_each_region_of_the_circles_has_its_count(count: int, size: int) -> None:
    """Inside all of its circles and outside of the others."""
    names = [f"set {i}" for i in range(count)]
    regions = {
        inside: size + i
        for i, inside in enumerate(
            inside for many in range(1, count + 1) for inside in combinations(names, many)
        )
    }
    plot = venn("Members", dict.fromkeys(names, 99), regions)
    assert_words_have_room(plot)
    circles = {
        name: (float(c.get("cx", "")), float(c.get("cy", "")), float(c.get("r", "")))
        for name, c in zip(names, parts(plot, "circle"), strict=True)
    }
    words = [t for t in parts(plot, "text") if t.get("font-weight") != "bold"]
    for (inside, number), element in zip(regions.items(), words, strict=True):
        assert element.text == f"{number:,}"
        x, y = float(element.get("x", "")), float(element.get("y", ""))
        within = {n for n, (cx, cy, r) in circles.items() if (x - cx) ** 2 + (y - cy) ** 2 < r**2}
        assert within == set(inside)


@pytest.mark.parametrize("count", [2, 3, 12, 30])
def test_a_map_has_every_pair_twice(count: int) -> None:
    """As full as its value; negative ones in another colour."""
    names = [f"a rather long name of a circuit that was found somewhere, {i}" for i in range(count)]
    values = {pair: (-1) ** i * 0.5 for i, pair in enumerate(combinations(names, 2))}
    plot = pair_map("Correlation", names, values, "{:.3f}".format)
    cells = parts(plot, "cell")
    assert len(cells) == count * (count - 1)
    assert {float(cell.get("fill-opacity", "1")) for cell in cells} == {0.5}
    below = {c.findtext("title") for c in cells if "f-vermillion" in c.get("class", "")}
    assert below == {f"{a} and {b}: -0.500" for (a, b), v in values.items() if v < 0} | {
        f"{b} and {a}: -0.500" for (a, b), v in values.items() if v < 0
    }
    assert len(plot.keys) == (1 if count == 2 else 2)
    assert_words_have_room(plot)


def test_what_is_undefined_is_a_dash() -> None:
    plot = pair_map("Correlation", ["a", "b"], {("a", "b"): float("nan")}, lambda value: "-")
    assert [t.text for t in parts(plot, "text")].count("-") == 2
    assert "nan" not in "".join(plot.body)


def test_letters_go_on_behind_z() -> None:
    found = list(letters([str(i) for i in range(28)]).values())
    assert (found[0], found[25], found[26], found[27]) == ("A", "Z", "AA", "BB")


@pytest.mark.parametrize("report", [circuits(2), circuits(3), attributions(3)])
def test_all_counts_are_in_the_picture_and_in_the_tables(report: CircuitReport) -> None:
    """The picture is well formed, and says that areas are no counts."""
    made = overlaps_document(report)
    root = ElementTree.fromstring(made.picture)
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    text = " ".join(word for word in words if word)
    assert "areas say nothing" in text
    tables = made.written[-2]
    assert not isinstance(tables, str)
    for overlap in report.members:
        for count in overlap.regions.values():
            assert f"{count:,}" in words
            assert any(f"{count:,}" in row for row in tables.texts)
        for pair in overlap.pairs:
            assert f"{pair.jaccard:.1%}" in words


def test_four_circuits_have_pairs_alone() -> None:
    report = circuits(4)
    made = overlaps_document(report)
    assert "<circle" not in made.picture
    assert "areas" not in made.picture
    assert made.rows is not None
    assert len(made.rows.rows) == 6


@pytest.mark.parametrize("report", [circuits(3), attributions(2), circuits(2, "<b>&{}")])
def test_the_page_is_light_and_dark(report: CircuitReport) -> None:
    """No colour stays behind, no name is markup."""
    page = overlaps_document(report).texts["circuits.html"]
    classes = set(re.findall(r'class="(?:[^"]* )?([fs])-(\w+)', page))
    assert ("s", "blue") in classes
    for kind, name in classes:
        assert f".{kind}-{name} {{" in STYLE
    assert "<b>&" not in page


def test_the_table_says_what_chance_would_give() -> None:
    report = circuits(2)
    pairs: Any = overlaps_document(report).printed[0]
    [pair] = report.members[0].pairs
    assert pairs.texts == [("set 0", "set 1", f"{pair.jaccard:.1%} ({pair.jaccard_by_chance:.1%})")]
