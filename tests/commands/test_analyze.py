"""`lightning-prune analyze`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from lightning_prune.attribution.attributions import Attributions
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.cli import main
from lightning_prune.plan import Plan
from lightning_prune.report import scores
from tests.analysis.test_scores import unit_plan, weight_plan


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


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


def ranked(seed: int = 0) -> Attributions:
    generator = torch.Generator().manual_seed(seed)
    return Attributions("neuron", {str(i): torch.randn(30, generator=generator) for i in range(3)})


def test_circuits_make_tables_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    """They are called by what tells them apart."""
    for seed, name in enumerate(("one", "two", "three")):
        CircuitUnits.random(ranked(), 40, seed).save(f"runs/{name}/circuit.json")
    main(["analyze", "circuits", "runs/one", "runs/two/circuit.json", "runs/three", "--out", "out"])
    said = capsys.readouterr().out
    found = json.loads(Path("out/circuits.json").read_text())
    assert found["names"] == ["one", "two", "three"]
    for region in found["members"][0]["regions"]:
        line = " and ".join(region["in"])
        assert any(line in row and f"{region['count']}" in row for row in said.splitlines())
    pair = found["members"][0]["pairs"][0]
    assert f"{pair['jaccard']:.1%}" in said
    assert f"{pair['jaccard_by_chance']:.1%}" in said
    names = [f"circuits.{ending}" for ending in ("csv", "html", "json", "md", "svg")]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    assert Path("out/circuits.csv").read_text().count("\n") == 1 + 3
    ElementTree.parse("out/circuits.svg")


def test_attributions_are_compared_by_ranks_and_their_lowest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without --out nothing is written."""
    for seed, name in enumerate(("general", "undesired")):
        ranked(seed).save(f"run/attributions/{name}.safetensors")
    paths = [f"run/attributions/{name}.safetensors" for name in ("general", "undesired")]
    main(["analyze", "circuits", *paths, "--counts", "5", "20"])
    said = capsys.readouterr().out
    for expected in ("general", "undesired", "Spearman", "lowest 5", "lowest 20", "by chance"):
        assert expected in said
    assert ".safetensors" not in said
    assert [path.name for path in Path().iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: what, paths"),
        (["scores"], "the following arguments are required: paths"),
        (["masks", "a"], "what=masks is not allowed. Allowed: scores, circuits."),
        (["scores", "nothing"], "no plan at 'nothing'"),
        (["scores", "empty"], "the plan in empty keeps no scores. Make the method with keep_scor"),
        (["scores", "a", "--out", "file"], "file is a file"),
        (["scores", "a", "--counts", "3"], "counts goes with circuits"),
        (["scores", "a", "a", "a"], "one or two plans are compared, and 3 are given"),
        (["circuits", "one"], "given: 1 (circuit); two or more can be compared"),
        (["circuits", "one", "./one/circuit.json"], "one is named twice; name each circuit once"),
        (["circuits", "one", "nothing"], "nothing is neither a circuit (.json, or a folder with"),
        (["circuits", "one", "a"], "a/circuit.json'; `lightning-prune circuit` writes"),
        (["circuits", "one", "none.safetensors"], "none.safetensors'; lightning_prune.attribute"),
        (["circuits", "one", "all.safetensors"], "is a circuit of neurons and all.safetensors an"),
        (["circuits", "one", "two", "--counts", "99"], "has 12 neurons; counts are whole numbers"),
        (["circuits", "one", "two", "--out", "file"], "file is a file"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in all commands."""
    Path("file").touch()
    Plan().save("empty")
    unit_plan("SNIP", seed=0).save("a")
    ranked().save("all.safetensors")
    for seed, name in enumerate(("one", "two")):
        CircuitUnits.random(ranked(), 12, seed).save(f"{name}/circuit.json")
    with pytest.raises(SystemExit) as exit:
        main(["analyze", *arguments])
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("lightning-prune: error: ")
    assert message in said
    assert said.count("\n") == 1
