"""The importance of blocks on paper."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from lightning_prune.allocation import read_importance
from lightning_prune.evidence.influence import MEASURES
from lightning_prune.report.files import print_document, write
from lightning_prune.report.importance import MEANING, Importance, importance_document

SETTINGS = {"windows": 16, "length": 128}


def example(*values: float, model: str = "tiny", part: str = "block") -> Importance:
    return Importance(model, "removal", part, dict(enumerate(values)), dict(SETTINGS))


def drawn(importance: Importance, kind: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(importance_document(importance).picture)
    return [element for element in root.iter() if element.tag.endswith(kind)]


def bars(importance: Importance) -> list[tuple[float, float]]:
    """The upper end of each, and how tall it is."""
    found = [bar for bar in drawn(importance, "rect") if "bar" in bar.get("class", "").split()]
    return [(float(bar.get("y", "")), float(bar.get("height", ""))) for bar in found]


def labels(importance: Importance) -> list[str | None]:
    return [element.text for element in drawn(importance, "text")]


def test_every_measure_is_explained() -> None:
    """In the same words everywhere."""
    assert set(MEANING) == {"removal", *MEASURES}


def test_allocations_read_what_is_written(tmp_path: Path) -> None:
    """Digit for digit; what it was measured on stands beside it."""
    importance = example(1 / 3, -2.5, 0.0)
    document = importance_document(importance)
    files = write(document, tmp_path)
    assert read_importance(files["importance.json"], [0, 1, 2], 3) == [1 / 3, -2.5, 0.0]
    found = json.loads(Path(files["importance.json"]).read_text())
    assert found | SETTINGS == found
    assert (found["model"], found["measure"], found["part"]) == ("tiny", "removal", "block")
    assert Path(files["importance.svg"]).read_text() == document.picture


def test_bars_are_as_tall_as_their_values() -> None:
    """From zero up, those below it down."""
    (top, first), (zero, second), (none, third) = bars(example(30, -10, 0))
    assert first == pytest.approx(3 * second, rel=1e-2)
    assert top + first == pytest.approx(zero, abs=0.2)
    assert none == zero
    assert third == 0


@pytest.mark.parametrize(
    "values", [(0.0, 0.0), (-1.0, -4.0), (3e-9, 1e-9), (1e12, 5.0), (2.0,)], ids=str
)
def test_any_values_can_be_drawn(values: tuple[float, ...]) -> None:
    """Inside the picture, with round numbers beside it."""
    importance = example(*values)
    height = float(drawn(importance, "svg")[0].get("height", ""))
    assert all(y > 0 and y + length < height for y, length in bars(importance))
    assert labels(importance).count("0") >= 1
    assert len(bars(importance)) == len(values)


def test_round_numbers_stand_beside_the_bars() -> None:
    """As far as the bars go."""
    assert {"0", "200", "400", "600", "800"} <= set(labels(example(812.3, -120.0)))


def test_names_are_text_and_not_markup() -> None:
    """Whatever the model is called."""
    importance = example(1.0, model="<b>&amp;[red]", part="mlp")
    assert "<b>&amp;[red]: importance of blocks" in labels(importance)
    console = Console(file=io.StringIO(), width=100)
    print_document(importance_document(importance), console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "<b>&amp;[red]: importance of blocks" in printed
    assert "removal of each block's MLP: what the perplexity rises by without it" in printed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    """With the blocks, and what to do."""
    with pytest.raises(ValueError, match=r"removal of blocks \[1\] of tiny is not finite"):
        example(1.0, value)
