"""`lightning-prune analyze report`: runs side by side, as they are printed and written."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lightning_prune.analysis.store.results import Results
from lightning_prune.analysis.store.rows import Circuit, Evaluation, Recovery, Run, Similarity
from lightning_prune.cli import main
from tests.analysis.store.made import matrices, pruned

pytest.importorskip("duckdb")


class Tags(HTMLParser):
    """Every tag that a page opens."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


def test_runs_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """In a table, a page without scripts, a picture, Markdown, JSON and CSV."""
    cut = [*matrices("dense", 0.0), *matrices("pruned", 0.0, width=12)]
    on = {"task": "wikitext2", "split": "validation", "length": 256, "samples": 8}
    cut += [Evaluation(stage, "perplexity", value, **on) for stage, value in
            (("dense", 10.0), ("pruned", 40.0), ("recovered", 20.0))]  # fmt: skip
    cut.append(Recovery("LoRA(r=2)", 5, 10.0, 40.0, 20.0, 2.5, 1.0))
    more = [
        Evaluation("recovered", "acc", 0.5, 0.01, task="boolq"),
        Circuit("circuit", "neuron", 3, 11.0, 0.5, 0.4, 0.6, 0.5, 0.7),
        Similarity("a", "b", "masks", "jaccard", 0.5, by_chance=0.25),
    ]
    flap = Run("fit", "tiny", method="FLAP", ratio=0.2, rows=[*cut, *more])
    Results("r.duckdb").add([pruned(), pruned("SparseGPT", 15.0), flap])
    main(["analyze", "report", "r.duckdb", "--out", "out"])
    said = capsys.readouterr().out
    line = {name: next(t for t in said.splitlines() if t.strip().startswith(name)) for name in
            ("Wanda 0.5", "SparseGPT 0.5", "FLAP 0.2", "mlp.down_proj")}  # fmt: skip
    assert "20.00  2.00x" in line["Wanda 0.5"]
    assert "1.50x" in line["SparseGPT 0.5"]
    assert "2.00x" in line["FLAP 0.2"]
    assert line["mlp.down_proj"].split()[1:] == ["50.0%", "50.0%", "25.0%"]
    assert "Perplexity is of 8 windows of 256 tokens of validation wikitext2." in said
    assert "66.7%" in said, "what the recovery has regained"
    page = Path("out/comparison.html").read_text()
    for heading in ("Recovery", "Circuits", "Similarities", "Tasks", "Pictures"):
        assert f"<h2>{heading}</h2>" in page
    assert "script" not in Tags(page).found
    assert Tags(page).found.count("svg") == 1 + 1 + 3
    ElementTree.parse("out/comparison.svg")
    value = json.loads(Path("out/comparison.json").read_text())
    assert [run["number"] for run in value["runs"]] == [1, 2, 3]
    assert Path("out/comparison.csv").read_text().count("\n") == 1 + 3


def test_runs_are_chosen_and_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """In the order asked for; what has the same name, by its number."""
    Results("r.duckdb").add([pruned(), pruned("SparseGPT"), pruned(perplexity=30.0)])
    main(["analyze", "report", "r.duckdb", "--runs", "3", "1"])
    said = capsys.readouterr().out
    assert said.index("Wanda 0.5 #3") < said.index("Wanda 0.5 #1")
    assert "SparseGPT" not in said


def test_names_and_errors_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that failed is a line with its reason."""
    failed = Run("sweep", "<script>", method="Wanda", sparsity=0.5, error="<b>too big</b>")
    Results("r.duckdb").add([failed])
    main(["analyze", "report", "r.duckdb", "--out", "out"])
    assert "Wanda 0.5 failed: <b>too big</b>" in capsys.readouterr().out
    page = Path("out/comparison.html").read_text()
    assert "script" not in Tags(page).found
    assert "&lt;b&gt;too big" in page


def test_an_empty_store_has_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    Results("r.duckdb").prepare()
    with pytest.raises(SystemExit):
        main(["analyze", "report", "r.duckdb"])
    assert "r.duckdb has no runs yet; `--db r.duckdb` adds some" in capsys.readouterr().err
