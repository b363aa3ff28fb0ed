"""Charts: that they are true, and that they can be read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest

from lightning_prune.report.axes import count_ticks, log_ticks, ticks
from lightning_prune.report.charts import Bars, Curve, block_bars, curves, heat_map
from lightning_prune.report.page_style import STYLE
from lightning_prune.report.plots import Plot, document
from lightning_prune.report.svg import PALETTE, fitted, width_of


def parts(plot: Plot, kind: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(f"<svg>{''.join(plot.body)}</svg>")
    return [e for e in root.iter() if e.tag == kind or kind in e.get("class", "").split()]


def numbers(values: Sequence[float]) -> Plot:
    row = Bars("heads", values, "blue", kind="bar", numbered=True)
    return block_bars("Heads", "heads", range(len(values)), [row], counts=True)


def test_a_bar_says_its_value_where_a_mouse_points_at_it() -> None:
    """Also where there is no room for a number above it."""
    tips = [bar.findtext("title") for bar in parts(numbers([6.0, 4.0] * 40), "bar")]
    assert tips[:2] == ["block 0: 6 heads", "block 1: 4 heads"]


@pytest.mark.parametrize("blocks", [4, 16, 30, 80])
def test_all_numbers_stand_above_bars_or_none(blocks: int) -> None:
    """Numbers side by side without room would be read as one: "6 6 6"."""
    labels = [t for t in parts(numbers([6.0] * blocks), "text") if t.get("font-size") == "10"]
    assert len(labels) in (0, blocks)
    assert len(labels) == (blocks if blocks <= 16 else 0)


def test_two_bars_of_a_block_stand_side_by_side() -> None:
    """Neither hides the other."""
    rows = [
        Bars("a", [1.0, 2.0], "grey", (0.0, 0.5), "a"),
        Bars("b", [2.0, 1.0], "blue", (0.5, 1.0), "b"),
    ]
    plot = block_bars("Both", "both", [0, 1], rows)
    for first, second in zip(parts(plot, "a"), parts(plot, "b"), strict=True):
        end = float(first.get("x", "")) + float(first.get("width", ""))
        assert end == pytest.approx(float(second.get("x", "")), abs=0.11)


def test_cells_are_as_full_as_their_share() -> None:
    """From nothing at 0 to the full colour at 1; a missing one is left out."""
    plot = heat_map("Zeros", "zeros", [0, 1, 2], {"q": [0.0, 0.5, 1.0], "up": [None, 0.25, 0.75]})
    shares = [float(cell.get("fill-opacity", "1")) for cell in parts(plot, "cell")]
    assert shares == [0.0, 0.5, 1.0, 0.25, 0.75]
    assert "50.0%" in [text.text for text in parts(plot, "text")]  # the mean of a row


def test_what_is_not_finite_is_left_out_of_a_curve() -> None:
    """And of the scale; without any point there is no picture."""
    points = [(1, math.inf), (2, 5.0), (3, math.nan), (4, 4.0)]
    plot = curves("Loss", "loss", [Curve("loss", points, "blue")], levels={"dense": math.inf})
    assert plot is not None
    [line] = parts(plot, "polyline")
    assert len(line.get("points", "").split()) == 2
    assert "nan" not in "".join(plot.body)
    assert curves("Loss", "loss", [Curve("loss", points[:1], "blue")]) is None


def test_ticks_of_a_curve_differ_and_steps_are_whole() -> None:
    """Where values are near each other they have the digits that tell them apart."""
    points = [(0, 0.9577), (1, 0.9589), (2, 0.9597), (3, 0.9589)]
    plot = curves("Norm", "norm", [Curve("norm", points, "blue")], x_name="block")
    assert plot is not None
    shown = [found.text or "" for found in parts(plot, "text")]
    assert {"0.9575", "0.9580", "0.9585", "0.9590", "0.9595"} <= set(shown)
    assert shown[-5:] == ["0", "1", "2", "3", "block"]


@pytest.mark.parametrize("low", [0.0, -3.7, 1e-9, 12345.0])
@pytest.mark.parametrize("span", [1e-6, 0.3, 7.0, 8e5])
def test_ticks_are_round_numbers_within_reach(low: float, span: float) -> None:
    """At least two, and not too many to be read."""
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)


@pytest.mark.parametrize("full", [0, 1, 3, 8, 22, 90, 256, 11008])
def test_counts_have_whole_ticks(full: int) -> None:
    """From none; there is no half of a head."""
    found = count_ticks(full)
    assert found[0] == 0
    assert all(tick == int(tick) <= full for tick in found)
    assert len(found) <= 6


@pytest.mark.parametrize("values", [[35.0, 36.0], [1.5, 1e9], [0.02, 0.05], [7.0], []])
def test_logarithmic_ticks_reach_around_all_values(values: list[float]) -> None:
    """So that nothing is drawn outside."""
    found = log_ticks(values)
    assert found == sorted(found)
    assert all(found[0] < value < found[-1] for value in values)


def test_every_colour_has_a_dark_shade_in_the_page() -> None:
    """A picture in the page has no colour that stays behind when it turns dark."""
    plot = numbers([6.0, 4.0])
    classes = set(re.findall(r'class="([fs])-(\w+)', "".join(plot.body)))
    assert classes
    for kind, name in classes:
        assert f".{kind}-{name} {{" in STYLE
    for name, (light, dark) in PALETTE.items():
        assert f"--{name}: {light.lower()};" in STYLE
        assert f"--{name}: {dark.lower()};" in STYLE


def test_a_file_is_valid_whatever_words_are_in_it() -> None:
    """Names are text."""
    text = document("x", "<b>\x00&", ["\ud800 [red]"], [numbers([1.0])])
    root = ElementTree.fromstring(text.encode("utf-8"))
    assert "<b>&" in [element.text for element in root.iter()]


def test_words_are_shortened_in_the_middle() -> None:
    """Until they fit; the ends tell names apart."""
    words = fitted("start" + "m" * 200 + "end", 200)
    assert words.startswith("sta")
    assert words.endswith("end")
    assert width_of(words) <= 200
    assert fitted("short", 200) == "short"


def test_long_lines_are_broken_and_not_cut() -> None:
    """Every word of how it was measured can be read below the heading of a picture."""
    facts = "so many windows, judged one by one, " * 12
    text = document("x", "tiny", [facts], [numbers([1.0])])
    root = ElementTree.fromstring(text.encode("utf-8"))
    shown = [element.text or "" for element in root.iter() if element.tag.endswith("}text")]
    lines = [line for line in shown if "judged" in line]
    assert len(lines) > 1
    assert " ".join(shown).count("so many windows,") == 12
    assert all(width_of(line, 12) <= float(root.get("width", "0")) for line in lines)


@pytest.mark.parametrize(("full", "last"), [(9, 9), (15, 15), (192, 192), (22, 20)])
def test_the_scale_of_counts_ends_with_all_where_it_can(full: int, last: int) -> None:
    """Nine heads are seen to be nine."""
    assert count_ticks(full)[-1] == last
