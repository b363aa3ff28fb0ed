from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from lightning_prune.report.files import write
from lightning_prune.report.report import Report, StageMetrics
from lightning_prune.report.run import run_document
from tests.report.example import example_report, full_report


def test_a_report_survives_json() -> None:
    """Reading what was written gives an equal report, with its stages in order."""
    report = full_report()
    again = Report.from_json(report.to_json())
    assert again == report
    assert list(again.stages) == ["dense", "pruned", "recovered"]


def test_a_report_of_before_it_had_more_to_say_is_read() -> None:
    """What is not there is empty."""
    value = json.loads(example_report().to_json())
    for name in (
        *("asked", "evaluations", "importance", "curves", "seconds", "configuration", "provenance"),
    ):
        del value[name]
    assert Report.from_json(json.dumps(value)) == example_report()


@pytest.mark.parametrize("perplexity", [math.inf, math.nan])
def test_a_ruined_model_still_gives_valid_json(perplexity: float) -> None:
    """JSON has no infinity; the figure is written as a string and read as a number."""
    report = example_report()
    report.stages["pruned"] = StageMetrics(perplexity, 1, 1, 4, None)
    text = report.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    again = Report.from_json(text).stages["pruned"].perplexity
    assert isinstance(again, float)
    assert math.isnan(again) if math.isnan(perplexity) else again == perplexity


def test_settings_that_json_does_not_know_are_written_as_text() -> None:
    """A path among the settings does not lose the report of a long run."""
    report = dataclasses.replace(example_report(), settings={"data": Path("text"), "lr": math.inf})
    assert json.loads(report.to_json())["settings"] == {"data": "text", "lr": "inf"}


@pytest.mark.parametrize("text", ["{}", "[]", '{"stages": {}, "blocks": [], "colour": 1}', "{"])
def test_other_json_is_refused(text: str) -> None:
    """What is not a report is a ValueError, whatever it is."""
    with pytest.raises(ValueError, match=r"not a report|Expecting"):
        Report.from_json(text)


def test_writing_leaves_report_and_picture_and_names_them(tmp_path: Path) -> None:
    """The folder is made, holds three files and no temporary ones, and the report names them."""
    report, folder = example_report(), tmp_path / "run"
    files = write(run_document(report, folder), folder)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "report.html",
        "report.json",
        "structure.svg",
    ]
    again = Report.from_json((folder / "report.json").read_text(encoding="utf-8"))
    assert again == dataclasses.replace(report, files=report.files | files)
    assert "plan" in again.files


def test_a_model_without_blocks_is_reported_without_a_picture(tmp_path: Path) -> None:
    """There is nothing to draw, and the figures are still written."""
    files = write(run_document(example_report(blocks=0), tmp_path), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert "structure.svg" not in files
