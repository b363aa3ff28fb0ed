"""`lightning-prune analyze similarity`, `clusters`, `pictures` and `activations`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from lightning_prune.analysis import extra
from lightning_prune.cli import main
from tests.analysis.test_scores import random, unit_plan, weight_plan

KINDS = ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")


def model(name: str, seed: int, blocks: int = 3) -> None:
    """Weights of which about half are zero."""
    weights = {
        f"model.layers.{i}.{kind}.weight": random(24, 20, seed=seed + i)
        * (random(24, 20, seed=seed + i + 9) < 0.5)
        for i in range(blocks)
        for kind in KINDS
    }
    Path(name).mkdir()
    save_file(weights, Path(name) / "model.safetensors")


def test_two_masks_make_tables_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is what is written."""
    model("a", 0)
    model("b", 100)
    main(["analyze", "similarity", "a", "b", "--features", "--out", "out"])
    said = capsys.readouterr().out
    for expected in ("masks, two by two", "a and b by projection", "a and b by block", "out/"):
        assert expected in said
    written = json.loads(Path("out/similarity.json").read_text())
    (whole,) = (s for s in written["similarities"] if s["level"] == "all")
    assert f"{whole['jaccard']:.1%}" in said
    rows = list(csv.DictReader(Path("out/similarity.csv").read_text().splitlines()))
    assert [float(r["jaccard"]) for r in rows] == [s["jaccard"] for s in written["similarities"]]
    features = parquet.read_table("out/similarity_features.parquet")
    assert features.num_rows == 9 * 20 + 3 * 4 == whole["features"]
    assert sum(features["jaccard"].to_pylist()) / features.num_rows == pytest.approx(
        whole["jaccard_mean"], abs=1e-6
    )
    assert "<svg" in Path("out/similarity.svg").read_text()
    assert Path("out/similarity.md").read_text().startswith("# How alike the masks of 2 models are")


def test_of_many_masks_the_whole_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """All pairs; places stand in files."""
    for seed, name in enumerate("abcd"):
        model(name, 100 * seed, blocks=1)
    main(["analyze", "similarity", *"abcd", "--out", "out"])
    said = capsys.readouterr().out
    assert "by projection" not in said
    written = json.loads(Path("out/similarity.json").read_text())
    assert sum(s["level"] == "all" for s in written["similarities"]) == 6


def test_what_cannot_be_compared_is_one_line(refused: Callable[..., str]) -> None:
    """Also a mask named twice, and features without a file."""
    model("a", 0)
    assert "compared by twos, and 1 are given" in refused("similarity", "a")
    assert "named twice" in refused("similarity", "a", "./a")
    assert "say in which folder with out" in refused("similarity", "a", "a", "--features")
    unit_plan("ReFer", seed=0).save("plan")
    assert "no matrix in common" in refused("similarity", "a", "plan")


def test_weights_that_are_no_numbers_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    """By pictures, by `sparsity`, and by the store: not as nan."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("duckdb")
    model("a", 0, blocks=1)
    weights = load_file("a/model.safetensors")
    weights[f"model.layers.0.{KINDS[1]}.weight"][2, :3] = float("nan")
    save_file(weights, "a/model.safetensors")
    main(["analyze", "pictures", "a", "--out", "out"])
    said = capsys.readouterr().out
    assert f"a: 3 weights of model.layers.0.{KINDS[1]}.weight are infinite or not a number" in said
    assert Path("out/histograms-a.png").is_file()
    main(["sparsity", "a", "--db", "r.duckdb"])
    said = capsys.readouterr().out
    assert "weights of 1 matrices are infinite or not a number: model.layers.0.mlp.up_proj" in said
    main(["analyze", "db", "r.duckdb", "SELECT kind, norm FROM matrices"])
    said = capsys.readouterr().out
    assert "not a number" in said
    assert "nan" not in said.split()


def test_structure_is_printed_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the block in the middle, if nothing is said."""
    pytest.importorskip("matplotlib")
    model("a", 0)
    main(["analyze", "clusters", "a", "--counts", "2", "--seeds", "0"])
    said = capsys.readouterr().out
    for expected in ("k-means", "seriation", "blocks of zeros", "nearest features", *KINDS):
        assert expected in said
    matrix = ["--include", "*.1.mlp.up_proj.*", "--counts", "2", "3", "--seeds", "0", "1"]
    main(["analyze", "clusters", "a", *matrix, "--out", "out"])
    assert " 1.mlp.up_proj " in capsys.readouterr().out
    written = json.loads(Path("out/clusters.json").read_text())
    assert [c["count"] for c in written["matrices"][0]["clusterings"]] == [2, 3]
    page = Path("out/clusters_model.layers.1.mlp.up_proj.png")
    assert page.read_bytes().startswith(b"\x89PNG")
    assert page.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert "shuffled" in Path("out/clusters.md").read_text()


def test_pictures_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """Of models and plans, with what they share and thresholds."""
    pytest.importorskip("matplotlib")
    model("a", 0)
    plan = weight_plan("Wanda", seed=0, blocks=3)
    for name in plan.mask_names:
        plan.set_scores("weight", name, random(24, 20, seed=len(name)))
        plan.set_mask(name, plan.scores("weight", name) < 0.5)
    plan.save("b")
    thresholds = {f"model.layers.{i}.mlp.up_proj": 0.1 * (i + 1) for i in range(3)}
    facts = {"sparsity": 0.5, "model": "a", "tokens": 10, "thresholds": thresholds}
    Path("t.json").write_text(json.dumps(facts))
    main(["analyze", "pictures", "a", "b", "--thresholds", "t.json", "--out", "out"])
    written = {path.name for path in Path("out").iterdir()}
    names = {f"{kind}-{name}" for kind in ("spy", "sparsity", "histograms") for name in "ab"}
    names |= {"scores-a", "scores-b", "upset", "thresholds"}
    assert {f"{name}.{kind}" for name in names for kind in ("png", "pdf")} <= written
    numbers = json.loads(Path("out/pictures.json").read_text())
    assert sum(part["weights"] for part in numbers["intersections"]) == 3 * 24 * 20
    assert len(numbers["masks"]["a"]["zeros"]) == 9
    said = capsys.readouterr().out
    assert all(name in said for name in written)


def test_a_mask_that_is_not_pruned_can_be_drawn() -> None:
    """All stays, and one mask shares nothing."""
    pytest.importorskip("matplotlib")
    weights = {"model.layers.0.mlp.up_proj.weight": torch.ones(5, 5)}
    save_file(weights, "dense.safetensors")
    main(["analyze", "pictures", "dense.safetensors", "--out", "out"])
    assert Path("out/spy-dense.png").is_file()
    assert not Path("out/upset.png").exists()


def test_a_mask_of_which_nothing_stays_can_be_drawn() -> None:
    """There are no weights whose sizes could be spread."""
    pytest.importorskip("matplotlib")
    save_file({"model.layers.0.mlp.up_proj.weight": torch.zeros(5, 5)}, "empty.safetensors")
    main(["analyze", "pictures", "empty.safetensors", "--out", "out"])
    assert Path("out/histograms-empty.png").is_file()


def test_missing_packages_are_one_line(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is read."""
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    install = "pip install 'lightning-prune[analysis]'"
    said = refused("clusters", "nowhere", "--out", "out")
    assert f"analyze clusters needs scikit-learn and matplotlib: {install}" in said
    assert f"needs matplotlib: {install}" in refused("pictures", "nowhere", "--out", "out")


def test_thresholds_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """On the model that comes with the package, and its text."""
    text = ["--length", "32", "--nsamples", "2"]
    main(["analyze", "activations", "quickstart", *text, "--out", "out"])
    said = capsys.readouterr().out
    assert "thresholds that leave out 50.0% of the inputs of each site" in said
    written = json.loads(Path("out/activations.json").read_text())
    assert written["tokens"] == 64
    assert len(written["thresholds"]) == 4 * 7


def test_a_wrong_share_is_one_line(refused: Callable[..., str]) -> None:
    """As any other mistake."""
    assert "sparsity=1.5 is not allowed" in refused("activations", "quickstart", "--sparsity=1.5")
