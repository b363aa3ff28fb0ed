"""Search: every combination of arguments, and shares that are better than those one began with."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lightning_prune import Plan
from lightning_prune.cli import main
from lightning_prune.studies import bench

FLAP_30 = '{"class_path": "FLAP", "init_args": {"ratio": 0.3}}'
FILES = {*("search.md", "search.csv", "search.json", "search.svg", "config.yaml", "cells")}


@pytest.fixture
def search(run: Any) -> Any:
    """Runs a search; gives its folder."""

    def search(method: str, *own: str) -> Path:
        root: Path = run("search", own=[f"--method={method}", *own])
        return root

    return search


def rows(root: Path) -> list[dict[str, str]]:
    with open(root / "search.csv") as file:
        return list(csv.DictReader(file))


def test_every_combination_is_a_row(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of arguments inside arguments and of samples; an error is a row; done is done."""
    calls: list[str] = []
    real = bench.prune

    def counting(model: Any, method: Any, *rest: Any) -> Any:
        calls.append(repr(method))
        return real(model, method, *rest)

    monkeypatch.setattr(bench, "prune", counting)
    method = '{"class_path": "WandaSP", "init_args": {"ratio": 0.3, "allocation": "Inverse"}}'
    method = method.replace(
        '"Inverse"', '{"class_path": "Inverse", "init_args": {"importance": "angular"}}'
    )
    vary = '--vary={"allocation.alpha": [0.5, 2.0], "nsamples": [4, 8], "ratio": [0.3, 0.999]}'
    root = search(method, vary)
    assert {path.name for path in root.iterdir()} == FILES
    found = {(row["method"], row["target"]): row for row in rows(root)}
    assert len(found) == 1 + 8
    good = found["allocation.alpha=0.5, nsamples=4", "ratio=0.3"]
    assert float(good["perplexity"]) > 0
    assert "up to" in found["allocation.alpha=0.5, nsamples=4", "ratio=0.999"]["error"]
    assert len({row["perplexity"] for row in found.values() if row["perplexity"]}) >= 4
    ElementTree.parse(root / "search.svg")
    before = len(calls)
    search(method, vary)
    assert len(calls) == before + 4  # those that failed are tried again


def test_the_best_shares_are_written_for_fit_and_prune(search: Any, tmp_path: Path) -> None:
    """Held-out perplexity no higher than at the start, plan and YAML that work."""
    own = ("--trials=12", "--stages=[2,4]", "--held_out=4")
    own += ("--data.nsamples=4", "--data.batch_size=2")
    root = search(FLAP_30, *own)
    assert {path.name for path in root.iterdir()} == FILES | {"best", "best.yaml"}
    found = json.loads((root / "search.json").read_text())
    assert [one["name"] for one in found["results"]] == ["as given", "found"]
    assert found["best"] in found["results"]
    assert [one["name"] for one in found["tried"][:2]] == ["uniform", "as given"]
    assert found["slots"] == ["block 0", "block 1", "block 2"]
    picture = ElementTree.parse(root / "search.svg").getroot()
    on_all = [one for one in found["tried"] if one["windows"] == 4]
    marks = [e for e in picture.iter() if "mark" in e.get("class", "").split()]
    assert len(marks) == len(on_all) + 1
    first = rows(root)
    assert rows(search(FLAP_30, *own)) == first  # again: the same trials, and known

    main(
        [
            *("prune", "--config", str(root / "config.yaml").replace("config", "best")),
            *(f"--{k}={v}" for k, v in _inputs(root).items()),
        ]
    )
    again = Plan.load(tmp_path / "again" / "plan")
    best = Plan.load(root / "best")
    for block, kept in best.blocks("neuron").items():
        assert again.kept("neuron", block).tolist() == kept.index_U.tolist()


def _inputs(root: Path) -> dict[str, Any]:
    """The model and text of a run, for another command."""
    import yaml

    config = yaml.safe_load((root / "config.yaml").read_text())
    data = config["data"]
    return {
        "model.path": config["model"]["path"],
        "data.source": data["source"],
        "data.nsamples": data["nsamples"],
        "data.length": data["length"],
        "data.batch_size": data["batch_size"],
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
        "trainer.default_root_dir": "again",
    }


@pytest.mark.parametrize(
    ("method", "own", "message"),
    [
        (FLAP_30, [], "vary, such as"),
        (FLAP_30, ["--vary={ratio: []}"], "ratio has no values"),
        (FLAP_30, ["--vary={nsamples: [0]}"], "whole numbers"),
        (FLAP_30, ["--vary={rato: [0.2]}"], "'rato'"),
        (FLAP_30, ["--trials=2", "--step=2"], "step=2"),
        ("Nothing", ["--vary={ratio: [0.2]}"], "Nothing"),
        ('{"class_path": "DropBlocks", "init_args": {"count": 1}}', ["--trials=2"], "no shares to"),
        (FLAP_30, ["--trials=2", "--per=row"], "row"),
        (FLAP_30, ["--trials=2", "--held_out=1000"], "share nothing with"),
    ],
)
def test_a_mistake_is_said_in_one_line(
    search: Any, capsys: pytest.CaptureFixture[str], method: str, own: list[str], message: str
) -> None:
    """Before anything is pruned."""
    with pytest.raises(SystemExit):
        search(method, *own)
    said = capsys.readouterr().err
    line = next(line for line in said.splitlines() if "error" in line)
    assert message in line
