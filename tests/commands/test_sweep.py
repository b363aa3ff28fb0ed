"""A grid of methods and sparsities: the same numbers as one by one, one table, resumable."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lightning_prune import Magnitude, Wanda, load, prune
from lightning_prune.cli import main
from lightning_prune.data import TextData
from lightning_prune.evaluation import perplexity
from lightning_prune.studies import bench

METHODS = '["Magnitude", "Wanda"]'


@pytest.fixture
def sweep(run: Any) -> Any:
    """Runs a sweep; gives its folder."""

    def sweep(methods: str, sparsities: str, *own: str) -> Path:
        root: Path = run("sweep", own=[f"--methods={methods}", f"--sparsities={sparsities}", *own])
        return root

    return sweep


def rows(root: Path) -> dict[tuple[str, str], dict[str, str]]:
    with open(root / "sweep.csv") as file:
        return {(row["method"], row["target"]): row for row in csv.DictReader(file)}


def test_a_cell_is_what_pruning_alone_gives(
    sweep: Any, model_folder: Path, text_file: Path
) -> None:
    """Each starts from the dense weights, whatever came before it."""
    found = rows(sweep(METHODS, "[0.5, 0.25]"))
    from transformers import AutoTokenizer

    data = TextData(str(text_file), length=32, nsamples=8)
    data.attach(AutoTokenizer.from_pretrained(model_folder), 64)
    validation = list(data.val_dataloader())
    dense = load(model_folder)
    assert float(found["dense", ""]["perplexity"]) == perplexity(dense, validation)
    for method in (Magnitude(sparsity=0.5), Wanda(sparsity=0.25)):
        model = load(model_folder)
        prune(model, method, data.calibration_dataloader())
        row = found[type(method).__name__, f"{method.fraction:.0%}"]
        assert float(row["perplexity"]) == perplexity(model, validation)
    assert float(found["Magnitude", "50%"]["sparsity"]) == pytest.approx(0.5, abs=1e-3)


def test_everything_is_in_one_folder(sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Markdown, CSV, JSON, a picture and the configuration; and the table is printed."""
    root = sweep('["Magnitude", {"class_path": "Wanda", "name": "mine"}]', '[0.5, "1:2"]')
    assert {path.name for path in root.iterdir()} == {
        *("sweep.md", "sweep.csv", "sweep.json", "sweep.svg", "config.yaml", "cells")
    }
    markdown = (root / "sweep.md").read_text()
    assert "| method | 50% | 1:2 |" in markdown
    assert "| `mine` |" in markdown
    assert markdown.count("**") >= 4  # the lowest of both columns
    found = json.loads((root / "sweep.json").read_text())
    assert [(c["method"], c["target"]) for c in found["cells"]] == [
        *(("Magnitude", "50%"), ("Magnitude", "1:2"), ("mine", "50%"), ("mine", "1:2"))
    ]
    assert found["settings"]["length"] == 32
    picture = ElementTree.parse(root / "sweep.svg").getroot()
    marks = [e for e in picture.iter() if "mark" in e.get("class", "").split()]
    assert len(marks) == 4 + 2  # and the legend
    said = capsys.readouterr().out
    assert "sweep.svg" in said
    assert "mine" in said


def test_what_is_done_is_not_done_again(sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only new cells are computed; nothing at all the third time."""
    done: list[str] = []
    real = bench.prune

    def counting(model: Any, method: Any, *rest: Any) -> Any:
        done.append(repr(method))
        return real(model, method, *rest)

    monkeypatch.setattr(bench, "prune", counting)
    first = rows(sweep('["Magnitude"]', "[0.5]"))
    root = sweep(METHODS, "[0.5, 1:2]")
    assert done == [
        *("Magnitude(sparsity=0.5)", "Magnitude(pattern='1:2')"),
        *("Wanda(sparsity=0.5)", "Wanda(pattern='1:2')"),
    ]
    assert rows(root)["Magnitude", "50%"] == first["Magnitude", "50%"]
    main(["sweep", "--config", str(root / "config.yaml")])
    assert len(done) == 4
    sweep('["Magnitude"]', "[0.5]", "--data.length=16")  # other text: another result
    assert len(done) == 5


def test_so_many_validation_windows_judge(sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the last batch has more; none is refused."""
    root = sweep('["Magnitude"]', "[0.5]", "--windows=3", "--data.batch_size=2")
    assert json.loads((root / "sweep.json").read_text())["settings"]["windows"] == 3
    with pytest.raises(SystemExit):
        sweep('["Magnitude"]', "[0.5]", "--windows=0")
    assert "windows=0; give 1 or more" in capsys.readouterr().err


def test_a_cell_that_fails_is_a_row(sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are there, and it is tried again the next time."""
    found = rows(sweep('["Magnitude"]', '["2:5", 0.5]'))
    assert "divisible by 5" in found["Magnitude", "2:5"]["error"]
    assert found["Magnitude", "2:5"]["perplexity"] == ""
    assert float(found["Magnitude", "50%"]["perplexity"]) > 0
    assert "Magnitude 2:5 failed: 2:5 needs" in capsys.readouterr().out


def test_a_damaged_result_is_done_again(sweep: Any) -> None:
    """Half a file is no result."""
    root = sweep('["Magnitude"]', "[0.5]")
    before = rows(root)
    for path in (root / "cells").glob("*.json"):
        path.write_text(path.read_text()[:40])
    sweep('["Magnitude"]', "[0.5]")
    after = rows(root)
    assert after["Magnitude", "50%"]["perplexity"] == before["Magnitude", "50%"]["perplexity"]


@pytest.mark.parametrize(
    ("methods", "sparsities", "message"),
    [
        ("[]", "[0.5]", "sweep needs methods and sparsities"),
        ('["Wandda"]', "[0.5]", "method=Wandda is not allowed. Did you mean Wanda"),
        ('["DropBlocks"]', "[0.5]", "methods that set weights to zero, or cut units off"),
        ('["GQATaylor"]', '["2:4"]', "GQATaylor cuts units off, and 2:4 is a pattern of zeros"),
        ('["Wanda"]', "[1.5]", "sweep: Wanda: sparsity=1.5 is not allowed"),
        ('["Wanda"]', '["half"]', "'half' is not of the form N:M"),
        ('["Wanda", "Wanda"]', "[0.5]", "'Wanda' is asked for twice"),
        (
            '[{"class_path": "Wanda", "init_args": {"sope": 1}}]',
            "[0.5]",
            "Wanda has no argument 'sope'. Did you mean scope?",
        ),
    ],
)
def test_a_mistake_is_found_before_anything_is_done(
    methods: str,
    sparsities: str,
    message: str,
    sweep: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """All cells are built first."""
    monkeypatch.setattr(bench, "prune", lambda *_: pytest.fail("pruned"))
    with pytest.raises(SystemExit):
        sweep(methods, sparsities)
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("lightning-prune: error: ")
    assert message in last


def test_several_processes_are_refused(sweep: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Each would do the whole grid."""
    with pytest.raises(SystemExit):
        sweep(METHODS, "[0.5]", "--trainer.devices=2")
    assert "sweep runs in one process" in capfd.readouterr().err


def test_the_shipped_sweep_runs(run: Any) -> None:
    """On the tiny model, without the patterns that its widths do not take."""
    root = run("sweep", "--config=sweep-weights.yaml", own=["--sparsities=[0.5]"])
    assert all(not row["error"] for row in rows(root).values())
