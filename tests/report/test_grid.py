"""A grid of results: gaps, the best of a column, and the same figures in every file."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console

from lightning_prune.report.files import print_document, write
from lightning_prune.report.grid import Cell, Grid, grid_document


def test_a_grid_with_holes_is_written_and_drawn(tmp_path: Path) -> None:
    """Infinite, failed and missing results leave gaps; JSON stays JSON."""
    cells = [
        Cell("A | B", "50%", math.inf, 0.5, 1.0),
        Cell("A | B", "2:4", error="no | room"),
        Cell("C", "50%", 12.0, 0.5, 1.0),
    ]
    result = Grid("m", 10.0, cells, {"length": 8, "windows": 2})
    write(grid_document(result), tmp_path)
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert found["cells"][0]["perplexity"] == "inf"
    marks = ElementTree.parse(tmp_path / "sweep.svg").getroot().iter()
    assert len([e for e in marks if "mark" in e.get("class", "").split()]) == 1 + 2
    assert "| `C` | **12.00** |  |" in (tmp_path / "sweep.md").read_text()
    assert "no \\| room" in (tmp_path / "sweep.md").read_text()


def test_every_file_has_the_same_figures(tmp_path: Path) -> None:
    """In CSV and JSON as measured, in the table in few digits; the lowest of a column is marked."""
    cells = [Cell("A", "50%", 12.3456, 0.5, 1.25), Cell("B", "50%", 20.0, 0.25, 2.0)]
    document = grid_document(Grid("m", 10.0, cells, {"length": 8, "windows": 2}))
    write(document, tmp_path)
    with open(tmp_path / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["perplexity"], row["seconds"]) for row in rows] == [
        *(("dense", "10.0", ""), ("A", "12.3456", "1.25"), ("B", "20.0", "2.0"))
    ]
    assert json.loads((tmp_path / "sweep.json").read_text())["cells"][0]["perplexity"] == 12.3456
    markdown = (tmp_path / "sweep.md").read_text()
    assert "| `A` | **12.35** |" in markdown
    assert "| `A` | 50% | 12.35 | 50.00% | 1.2 |" in markdown


def test_many_targets_stand_below_each_other_in_a_narrow_terminal() -> None:
    """None is cut off."""
    targets = [f"ratio={i / 20}" for i in range(12)]
    cells = [Cell("FLAP", target, 1000.0 + i) for i, target in enumerate(targets)]
    file = io.StringIO()
    print_document(grid_document(Grid("m", 10.0, cells)), Console(file=file, width=80))
    rows = file.getvalue().splitlines()
    for i, target in enumerate(targets):
        assert any(line.split()[-2:] == [target, f"{1000 + i:,}"] for line in rows)


def test_a_model_is_called_by_its_name_and_not_by_its_place(tmp_path: Path) -> None:
    """In the title of every file; where it lies is in JSON."""
    folder = tmp_path / "flap" / "pruned"
    folder.mkdir(parents=True)
    document = grid_document(Grid(str(folder), 10.0, [Cell("A", "50%", 12.0)]))
    write(document, tmp_path)
    assert (tmp_path / "sweep.md").read_text().startswith("# flap/pruned: perplexity by method")
    assert str(tmp_path) not in document.picture
    assert json.loads((tmp_path / "sweep.json").read_text())["model"] == str(folder)
