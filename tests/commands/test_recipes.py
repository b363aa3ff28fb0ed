"""The command line as a user types it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lightning_prune
from lightning_prune import Plan
from lightning_prune.cli import main
from lightning_prune.report.files import write
from lightning_prune.report.importance import Importance, importance_document

ROOT = Path(lightning_prune.__file__).parents[1]
RECIPES = sorted(p.name for p in (ROOT / "recipes").glob("*.yaml"))
IMAGES = [n for n in RECIPES if "ImageClassifier" in (ROOT / "recipes" / n).read_text()]
"""Not for the tiny language model; `test_images.py` runs them."""
OTHER_COMMANDS = {
    "train_quickstart_model.yaml": "fit",
    "train_shapes_model.yaml": "fit",
    "shapes-sweep.yaml": "sweep",
    "sweep-weights.yaml": "sweep",
    "smollm2-sweep.yaml": "sweep",
    "search-blocks.yaml": "search",
    "circuit-own.yaml": "circuit",
    "circuit-repetition.yaml": "circuit",
    "circuit-toxicity.yaml": "circuit",
}
SMALLER = {
    r"round_to: \d+": "round_to: 2",
    "layer_start: 4": "layer_start: 1",
    "layer_end: 30": "layer_end: 3",
    "count: 8": "count: 1",
}
SHORT_REPORT = (
    '--trainer.callbacks+={"class_path": "WriteReport", "init_args": {"speed": false, "prompt": 0}}'
)
RECOVERY = [
    name
    for name in RECIPES
    if re.search("adapter:|distillation:|EarlyStopping", (ROOT / "recipes" / name).read_text())
    and name not in IMAGES
]
FRAGMENTS = sorted(p.name for p in (ROOT / "lightning_prune" / "configs").glob("*.yaml"))


def test_a_recipe_is_found_by_name_and_leaves_one_folder(run: Any) -> None:
    """Config, plan, report, picture, logs and both models, from a folder without recipes."""
    root = run("fit", "--config", "quickstart.yaml", "--trainer.max_steps=2")
    names = {path.name for path in root.iterdir()}
    assert names >= {
        *("config.yaml", "plan", "report.json", "structure.svg"),
        *("logs", "checkpoints", "pruned", "recovered"),
    }
    again = yaml.safe_load((root / "config.yaml").read_text())
    assert again["trainer"]["callbacks"][0]["init_args"]["ratio"] == 0.25


def test_prune_prunes_and_saves_without_training(run: Any) -> None:
    """No optimizer step, no adapter, and no recovered folder."""
    root = run("prune", "--config=quickstart-wanda.yaml")
    assert (root / "pruned" / "model.safetensors").exists()
    assert not (root / "recovered").exists()
    assert list(json.loads((root / "report.json").read_text())["stages"]) == ["dense", "pruned"]
    assert Plan.load(root / "plan").sparsity() == 0.5


def test_fragments_make_a_run(run: Any) -> None:
    """One axis each; methods append in their order."""
    fragments = ["quickstart.yaml", "wanda_2of4.yaml"]
    configs = [f"--config={name}" for name in fragments]
    # 17 neurons stay of 22, and 17 is not divisible by 4, so cut groups only.
    more = ["--trainer.max_steps=1", "--model.adapter=null"]
    with pytest.raises(SystemExit):
        run("fit", *configs, *more)
    plans = run("fit", "--config=gqa_taylor.yaml", "--config=wanda.yaml", *more)
    assert Plan.load(plans / "plan-1").kinds == ["group", "neuron"]
    assert Plan.load(plans / "plan-2").mask_names


@pytest.fixture
def run_recipe(run: Any, tmp_path: Path) -> Any:
    """Runs a recipe on the tiny model and text, with counts that fit them."""

    def run_recipe(command: str, name: str, *arguments: str) -> Path:
        text = (ROOT / "recipes" / name).read_text()
        for asked, small in SMALLER.items():
            text = re.sub(asked, small, text)
        (tmp_path / name).write_text(text)
        for path in re.findall(r"runs/[\w-]*/importance.json", text):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            importance = Importance("tiny", "angular", "block", {0: 1.0, 1: 2.0, 2: 3.0})
            write(importance_document(importance), (tmp_path / path).parent)
        one_text = [f"--data.{use}=null" for use in ("calibration", "validation", "test")]
        report = [] if "WriteReport" in text else [SHORT_REPORT]
        root: Path = run(command, f"--config={tmp_path / name}", *one_text, *arguments, own=report)
        return root

    return run_recipe


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*RECIPES} - {*RECOVERY} - {*OTHER_COMMANDS} - {*IMAGES}))
def test_every_recipe_prunes(run_recipe: Any, name: str) -> None:
    """The tiny model, with counts that are its own."""
    assert Plan.load(run_recipe("prune", name) / "plan").removes_anything


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")
@pytest.mark.parametrize("name", RECOVERY)
def test_every_recipe_of_recovery_runs(run_recipe: Any, name: str) -> None:
    """It prunes, trains two steps, and leaves one plain model with the plan's zeros."""
    root = run_recipe("fit", name, "--trainer.max_steps=2")
    plan = Plan.load(root / "plan")
    weights = dict(lightning_prune.load(root / "recovered").named_parameters())
    assert plan.removes_anything
    for mask in plan.mask_names:
        assert not weights[mask][~plan.mask(mask)].any()
    assert "recovered" in json.loads((root / "report.json").read_text())["stages"]


def test_training_ends_when_the_perplexity_no_longer_falls(run_recipe: Any) -> None:
    """By configuration alone; the best weights are kept, and saved in the end."""
    root = run_recipe(
        "fit",
        "quickstart-wanda-dense.yaml",
        "--model.learning_rate=0.05",
        "--trainer.val_check_interval=1",
        "--trainer.max_steps=30",
        "--trainer.precision=32",
    )
    with open(root / "logs" / "version_0" / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val_perplexity"]]
    values = [float(row["val_perplexity"]) for row in rows]
    best = values.index(min(values))
    assert len(values) == best + 1 + 2 < 30
    assert (root / "checkpoints" / "best.ckpt").exists()
    saved = json.loads((root / "report.json").read_text())["stages"]["recovered"]["perplexity"]
    assert saved == pytest.approx(min(values), rel=1e-4)


@pytest.mark.slow
def test_instructions_recover_a_model(run: Any, tmp_path: Path, text_file: Path) -> None:
    """From Alpaca's file, calibrated on text; an empty answer everywhere is one clear error."""
    rows = [{"instruction": f"say {i}", "input": "", "output": f"{i} " * 9} for i in range(60)]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    own = [f"--data.source={tmp_path / 'alpaca.json'}", f"--data.calibration={text_file}"]
    own += ["--data.length=256", "--trainer.max_steps=2"]
    fit = partial(run, "fit", "--config=quickstart-llm-pruner-lora.yaml", model="quickstart")
    root = fit(own=own)
    assert (root / "recovered" / "model.safetensors").exists()
    shutil.rmtree(root)
    (tmp_path / "alpaca.json").write_text(json.dumps([row | {"output": " "} for row in rows]))
    with pytest.raises(SystemExit):
        fit(own=own)
    assert not (root / "plan").exists()


def test_the_quickstart_model_can_be_trained_again(run: Any) -> None:
    """Its recipe makes tokenizer and model from text."""
    root = run("fit", "--config=train_quickstart_model.yaml", "--trainer.max_steps=2", model=None)
    model = lightning_prune.load(root / "model")
    assert model.config.hidden_size == 128
    assert (root / "model" / "tokenizer.json").exists()


@pytest.mark.parametrize("name", RECIPES + FRAGMENTS)
def test_every_shipped_file_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By name, on its own."""
    with pytest.raises(SystemExit) as exit:
        main([OTHER_COMMANDS.get(name, "fit"), "--config", name, "--print_config"])
    assert exit.value.code == 0
    assert "default_root_dir" in capsys.readouterr().out


def test_an_uneven_result_is_validated_by_path(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder that a run leaves is a model path like any other."""
    root = run("fit", "--config=quickstart.yaml", "--trainer.max_steps=1")
    expected = json.loads((root / "report.json").read_text())["stages"]["recovered"]["perplexity"]
    capsys.readouterr()
    before = (root / "config.yaml").read_text()
    run("validate", model=root / "recovered")
    assert (root / "config.yaml").read_text() == before
    assert f"{expected:.4f}"[:6] in capsys.readouterr().out


def test_a_pattern_needs_no_quotes(run: Any) -> None:
    """YAML takes 2:4 for the number 124; it is understood all the same."""
    method = ["--trainer.callbacks=Magnitude", "--trainer.callbacks.pattern=1:2"]
    root = run("prune", *method)
    plan = Plan.load(root / "plan")
    keep_OI = plan.mask("model.layers.0.mlp.up_proj.weight")
    torch.testing.assert_close(keep_OI.unflatten(1, (-1, 2)).sum(-1), torch.ones(22, 16).long())
