"""`lightning-prune analyze scores`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_prune.cli import main
from lightning_prune.plan import Plan
from lightning_prune.report import scores
from tests.analysis.test_scores import unit_plan, weight_plan


def test_two_plans_make_a_table_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    """By block and over all; JSON has what the table has, the PDF is one."""
    pytest.importorskip("matplotlib")
    unit_plan("ReFer", seed=0).save("a")
    unit_plan("SNIP", seed=50).save("b")
    main(["analyze", "scores", "a", "b", "--out", "out"])
    said = capsys.readouterr().out
    for expected in ("A ReFer and B SNIP", "Spearman", "in common", "all", "B SNIP: neurons"):
        assert expected in said
    found = json.loads(Path("out/scores.json").read_text())
    every = found["pairs"][0]["agreement"]["all"]
    row = next(line for line in said.splitlines() if line.strip().startswith("all "))
    assert f"{every['pearson']:.3f}" in row
    assert f"{every['overlap']['jaccard']:.1%}" in row
    assert Path("out/scores.pdf").read_bytes().startswith(b"%PDF")
    assert str(Path("out/scores.pdf")) in said


@pytest.mark.slow
def test_the_pdf_is_the_same_every_time() -> None:
    """No date in it; weights and negative scores can be drawn."""
    pytest.importorskip("matplotlib")
    plan = weight_plan("Wanda", seed=0)
    plan.set_scores("neuron", 0, torch.arange(-3.0, 3.0))
    plan.save("a")
    for out in ("one", "two"):
        main(["analyze", "scores", "a", "a", "--out", out])
    assert Path("one/scores.pdf").read_bytes() == Path("two/scores.pdf").read_bytes()


def test_one_plan_shows_its_components(capsys: pytest.CaptureFixture[str]) -> None:
    """Against each other, and against what they were put together to."""
    unit_plan("AFR", seed=0, components=True).save("a")
    main(["analyze", "scores", "a"])
    said = capsys.readouterr().out
    assert "AFR and AFR Feature" in said
    assert "AFR Feature and AFR NextToken" in said
    assert not Path("scores.json").exists()


def test_one_set_of_scores_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to compare it with, and the user is told how."""
    unit_plan("SNIP", seed=0).save("a")
    main(["analyze", "scores", "a"])
    said = capsys.readouterr().out
    assert "name a second plan to compare it with" in said
    assert "SNIP: neurons" in said


def test_many_matrices_are_summed_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal is not flooded; files have them all."""
    monkeypatch.setattr(scores, "MOST_ROWS", 2)
    weight_plan("Wanda", seed=0, blocks=4).save("a")
    main(["analyze", "scores", "a", "a"])
    said = capsys.readouterr().out
    assert "up_proj" not in said
    assert "1.000" in said


def test_without_matplotlib_the_rest_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the user is told what to install."""
    monkeypatch.setattr(scores, "can_draw", lambda: False)
    unit_plan("SNIP", seed=0).save("a")
    main(["analyze", "scores", "a", "a", "--out", "out"])
    assert [path.name for path in Path("out").iterdir()] == ["scores.json"]
    assert "pip install 'lightning-prune[analysis]'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: paths"),
        (["nothing"], "no plan at 'nothing'"),
        (["empty"], "the plan in empty keeps no scores. Make the method with keep_scores=True"),
        (["a", "--out", "file"], "file is a file"),
        (["a", "--counts", "3"], "scores has no argument 'counts'"),
        (["a", "a", "a"], "one or two plans are compared, and 3 are given"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, refused: Callable[..., str]
) -> None:
    """As in all commands."""
    Path("file").touch()
    Plan().save("empty")
    unit_plan("SNIP", seed=0).save("a")
    assert message in refused("scores", *arguments)
