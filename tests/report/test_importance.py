"""The importance of blocks on paper."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from lightning_prune.allocation import MEASURES, read_importance
from lightning_prune.report.importance import MEANING, Importance, importance_svg, print_importance

SETTINGS = {"windows": 16, "length": 128}


def example(*values: float, model: str = "tiny", part: str = "block") -> Importance:
    return Importance(model, "removal", part, dict(enumerate(values)), dict(SETTINGS))


def drawn(importance: Importance, kind: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(importance_svg(importance))
    return [element for element in root.iter() if element.tag.endswith(kind)]


def bars(importance: Importance) -> list[tuple[float, float]]:
    """Where each begins, and how long it is."""
    found = [bar for bar in drawn(importance, "rect") if bar.get("class") == "bar"]
    return [(float(bar.get("x", "")), float(bar.get("width", ""))) for bar in found]


def labels(importance: Importance) -> list[str | None]:
    return [element.text for element in drawn(importance, "text")]


def test_every_measure_is_explained() -> None:
    """In the same words everywhere."""
    assert set(MEANING) == set(MEASURES)


def test_allocations_read_what_is_written(tmp_path: Path) -> None:
    """Digit for digit; what it was measured on stands beside it."""
    importance = example(1 / 3, -2.5, 0.0)
    files = importance.write(tmp_path)
    assert read_importance(files["importance.json"], [0, 1, 2], 3) == [1 / 3, -2.5, 0.0]
    found = json.loads(Path(files["importance.json"]).read_text())
    assert found | SETTINGS == found
    assert (found["model"], found["measure"], found["part"]) == ("tiny", "removal", "block")
    assert Path(files["importance.svg"]).read_text() == importance_svg(importance)


def test_bars_are_as_long_as_their_values() -> None:
    """From zero, those below it to the left."""
    (zero, first), (left, second), (none, third) = bars(example(30, -10, 0))
    assert first == pytest.approx(3 * second, rel=1e-3)
    assert left + second == pytest.approx(zero, abs=0.2)
    assert none == zero
    assert third < 1


@pytest.mark.parametrize(
    "values", [(0.0, 0.0), (-1.0, -4.0), (3e-9, 1e-9), (1e12, 5.0), (2.0,)], ids=str
)
def test_any_values_can_be_drawn(values: tuple[float, ...]) -> None:
    """Inside the picture, with round numbers below it."""
    importance = example(*values)
    width = float(drawn(importance, "svg")[0].get("width", ""))
    assert all(x > 0 and x + length < width for x, length in bars(importance))
    assert labels(importance).count("0") >= 1
    assert len(bars(importance)) == len(values)


def test_round_numbers_stand_below() -> None:
    """Behind the three lines above, as far as the bars go."""
    assert labels(example(812.3, -120.0))[3:8] == ["0", "200", "400", "600", "800"]


def test_names_are_text_and_not_markup() -> None:
    """Whatever the model is called."""
    importance = example(1.0, model="<b>&amp;[red]", part="mlp")
    assert "<b>&amp;[red]: importance of blocks" in labels(importance)
    console = Console(file=io.StringIO(), width=100)
    print_importance(importance, {"importance.json": "there"}, console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "<b>&amp;[red]: importance of blocks" in printed
    assert "removal of each block's MLP: what the perplexity rises by without it" in printed
    assert "importance.json  there" in printed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    """With the blocks, and what to do."""
    with pytest.raises(ValueError, match=r"removal of blocks \[1\] of tiny is not finite"):
        example(1.0, value)
