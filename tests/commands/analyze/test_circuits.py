"""`lightning-prune analyze circuits`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from lightning_prune.attribution.attributions import Attributions
from lightning_prune.attribution.circuits import CircuitUnits
from lightning_prune.cli import main


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
        ([], "the following arguments are required: paths"),
        (["one"], "given: 1 (circuit); two or more can be compared"),
        (["one", "./one/circuit.json"], "one is named twice; name each circuit once"),
        (["one", "nothing"], "nothing is neither a circuit (.json, or a folder with"),
        (["one", "folder"], "folder/circuit.json'; `lightning-prune circuit` writes"),
        (["one", "none.safetensors"], "none.safetensors'; lightning_prune.attribute"),
        (["one", "all.safetensors"], "is a circuit of neurons and all.safetensors an"),
        (["one", "two", "--counts", "99"], "has 12 neurons; counts are whole numbers"),
        (["one", "two", "--out", "file"], "file is a file"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, refused: Callable[..., str]
) -> None:
    """As in all commands."""
    Path("file").touch()
    Path("folder").mkdir()
    ranked().save("all.safetensors")
    for seed, name in enumerate(("one", "two")):
        CircuitUnits.random(ranked(), 12, seed).save(f"{name}/circuit.json")
    assert message in refused("circuits", *arguments)
