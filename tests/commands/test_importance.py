"""`lightning-prune importance`, and the allocations that use what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest

from lightning_prune import Plan
from lightning_prune.evidence import Measure


def importance(run: Any, *arguments: str) -> dict[str, Any]:
    folder: Path = run("importance", own=arguments)
    found: dict[str, Any] = json.loads((folder / "importance.json").read_text())
    return found


@pytest.mark.parametrize("measure", get_args(Measure))
def test_every_measure_gives_each_block_a_number(run: Any, measure: str) -> None:
    """With the text it was measured on, and a bar for each in the picture."""
    found = importance(run, f"--measure={measure}", "--windows=3")
    assert found["measure"] == measure
    assert found["windows"] == 3
    assert found["length"] == 32
    picture = ElementTree.parse("run/importance.svg").getroot()
    bars = [e for e in picture.iter() if "bar" in e.get("class", "").split()]
    assert len(bars) == len(found["values"])
    assert Path("run/config.yaml").is_file()


def test_it_prints_a_table(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers, what they mean, and on what they were measured."""
    importance(run, "--measure=cosine", "--windows=0")
    printed = capsys.readouterr().out
    assert "mean of 1 - cos(input, output); calibration text, 8 windows of 32 tokens" in printed
    assert "importance.json" in printed


def test_an_allocation_uses_the_file_and_measures_nothing_anew(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blocks that are more important keep more."""
    values = importance(run, "--measure=angular", "--windows=8")["values"]
    Path("run/importance.json").rename("mine.json")
    capsys.readouterr()
    config = Path("method.yaml")
    config.write_text(
        "trainer:\n  callbacks:\n    - class_path: WandaSP\n      init_args:\n"
        "        ratio: 0.3\n        attention: false\n        repair: null\n"
        "        allocation: {class_path: Inverse, init_args: {importance: mine.json}}\n"
    )
    folder: Path = run("prune", "--config=method.yaml")
    plan = Plan.load(folder / "plan")
    kept = {str(block): kept.index_U.numel() for block, kept in plan.blocks("neuron").items()}
    assert sorted(kept, key=kept.get) == sorted(kept, key=values.get)  # type: ignore[arg-type]
    assert "Inverse" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--measure=taste"], "measure=taste is not allowed. Allowed: removal, norm, angular"),
        (["--part=head"], "part=head is not allowed. Allowed: block, attention, mlp"),
        (["--windows=-1"], "windows=-1; give 1 or more calibration windows, or 0 for all"),
        (["--measure=norm", "--part=mlp"], "measure='norm' is that of a block's output"),
    ],
)
def test_wrong_settings_are_one_line(
    run: Any, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """That says what is allowed."""
    with pytest.raises(SystemExit):
        importance(run, *arguments)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"lightning-prune: error: {message}")
