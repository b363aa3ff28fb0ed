"""Models whose activations are cut, by the commands `generate`, `evaluate` and `measure`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lightning_prune import load
from lightning_prune.analysis.activations import Thresholds
from lightning_prune.anatomy import Anatomy
from lightning_prune.cli import main
from lightning_prune.evaluation import Evaluation

NUMBERS = ["--batch_sizes", "1", "--lengths", "8", "--new_tokens", "8", "--runs", "2"]
NUMBERS += ["--device", "cpu"]


@pytest.fixture(autouse=True)
def model(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with thresholds in its folder, and with two more files of them beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    folder = Path(shutil.copytree(model_folder, "model"))
    sites = [site.name for block in Anatomy(load(folder)).blocks for site in block.sites]
    for sparsity, value, file in ((0.4, 0.05, "few"), (0.9, 1e9, "all"), (0.4, 0.1, "few_too")):
        write(f"{file}.json", sparsity, dict.fromkeys(sites, value))
    shutil.copy("few.json", folder / "activation_thresholds.json")
    return folder


def write(file: str, sparsity: float, thresholds: dict[str, float]) -> None:
    Thresholds(sparsity, "model", 100, thresholds, "site", {}).write(file)


def test_a_model_goes_on_with_its_activations_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """By the thresholds in its folder, or those of a file; what that spared is no text."""
    asked = ["generate", "model", "--prompt", "The assert", "--new_tokens", "6", "--device", "cpu"]
    texts = {}
    for thresholds in ((), ("saved",), ("few.json",), ("all.json",)):
        main([*asked, *(option for one in thresholds for option in ("--thresholds", one))])
        said = capsys.readouterr()
        texts["".join(thresholds)] = said.out
        assert ("of the weights not needed" in said.err) == bool(thresholds)
    assert texts["saved"] == texts["few.json"]
    assert texts["all.json"] != texts[""]


def test_perplexity_is_compared_with_that_of_the_whole_model(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column for each file; what share of the weights was not needed."""
    asked = ["--texts", str(text_file), "--lengths", "16", "--windows", "2", "--device", "cpu"]
    cut = ["--thresholds", "saved", "all.json"]
    main(["evaluate", "model", *asked, *cut, "--out", "out"])
    said = " ".join(capsys.readouterr().out.split())
    assert "weights not needed" in said
    found = json.loads(Path("out/evaluation.json").read_text())
    assert list(found["models"]) == ["model", "model 40% cut", "model 90% cut"]
    whole, few, every = (Evaluation.from_dict(one) for one in found["models"].values())
    assert (whole.unread, every.unread) == (None, 1.0)
    assert few.unread is not None
    assert 0 < few.unread < 1
    perplexities = [one.perplexities[0].perplexity for one in (whole, few, every)]
    assert len(set(perplexities)) == 3
    assert found["settings"]["thresholds"] == ["saved", "all.json"]


def test_speed_is_compared_with_that_of_the_whole_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Though it has as many parameters; which way products went is said."""
    main(["measure", "model", *NUMBERS, "--thresholds", "few.json"])
    said = capsys.readouterr().out
    [row] = [line for line in said.splitlines() if line.strip().startswith("decode, tokens/s")]
    assert "x)" in row
    assert "model 40% cut:" in said
    assert "In brackets: speed to dense." in said


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        (["nothing.json"], "no thresholds of activations in nothing.json; `lightning-prune ana"),
        (["few.json", "few_too.json"], "few_too.json is of 40%, as another file is"),
        (["other.json"], "model: there is a threshold for 'model.layers.7.mlp.down_proj'"),
        (["broken.json"], "model: broken.json holds no thresholds"),
    ],
)
def test_a_mistake_is_one_line_before_the_model_is_loaded(
    thresholds: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thresholds of another model, two of one sparsity, and what are none."""
    write("other.json", 0.5, {"model.layers.7.mlp.down_proj": 0.1})
    Path("broken.json").write_text('{"thresholds": {"lm_head": "much"}}')
    monkeypatch.setattr("lightning_prune.models.CausalLM.load", lambda _: pytest.fail("loaded"))
    with pytest.raises(SystemExit):
        main(["measure", "model", *NUMBERS, "--thresholds", *thresholds])
    assert message in capsys.readouterr().err
