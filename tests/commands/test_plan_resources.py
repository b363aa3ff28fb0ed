"""`lightning-prune plan_resources`, and the refusal of what cannot fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

GIVEN = ["--operations=1e9", "--read=1e9"]


def test_a_recipe_for_another_machine_is_planned_for(
    run: Any, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its devices need not be here, nor the weights; nothing is left in the run's folder."""
    shutil.copy(model_folder / "config.json", tmp_path)
    own = ["--trainer.accelerator=gpu", "--trainer.devices=4", "--trainer.num_nodes=2", *GIVEN]
    own += ["--device-memory=80GB", "--out=planned"]
    folder: Path = run("plan_resources", "--config=quickstart-wanda.yaml", model=tmp_path, own=own)
    value = json.loads((tmp_path / "planned" / "resources.json").read_text())
    assert (value["device"], value["processes"], value["nodes"]) == ("cuda", 8, 2)
    assert value["peak_device"] > 0
    assert value["sent"] > 0
    assert not folder.exists()
    printed = capsys.readouterr().out
    assert "It fits: " in printed
    assert "plan/plan.safetensors" in printed


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ([], "there is nothing to plan for: name a method under trainer.callbacks"),
        (["--trainer.callbacks+=Magnitude", "--trainer.callbacks.sparsity=0.5", "--host_memory=9"],
         "host_memory='9' is not allowed: give a size such as 80GB"),
        (["--trainer.callbacks+=Wanda", "--trainer.callbacks.sparsity=0.5", "--data.length=512"],
         "length=512 is more than the 64 tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_one_line(
    run: Any, own: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """That says what to do."""
    with pytest.raises(SystemExit):
        run("plan_resources", own=[*own, *GIVEN])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"lightning-prune: error: {message}")


def test_prune_refuses_what_cannot_fit_before_it_measures(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the setting that would make it fit."""
    monkeypatch.setattr("lightning_prune.pipeline.fit.free_on_device", lambda _: 1000)
    monkeypatch.setattr("lightning_prune.pipeline.fit.free_memory", lambda: 1000)
    with pytest.raises(SystemExit):
        run("prune", "--config=quickstart-wanda.yaml")
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("lightning-prune: error: Wanda takes at least ")
    assert not Path("run/plan").exists()
    assert not Path("run/pruned").exists()
