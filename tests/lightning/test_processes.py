"""The same run in one process, in two with DDP, and in two with FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lightning_prune
from lightning_prune import Plan

STRATEGIES = {
    "one process": [],
    "ddp": ["--trainer.strategy=ddp", "--trainer.devices=2"],
    "fsdp2": ["--trainer.strategy=fsdp2", "--trainer.devices=2"],
}
MASKS = ["--trainer.callbacks+=Wanda", "--trainer.callbacks.sparsity=0.5"]


def fit(root: Path, *arguments: str) -> None:
    """Run the quickstart's `fit` for two steps, as a user would."""
    command = [sys.executable, "-m", "lightning_prune", "fit", "--config=quickstart.yaml"]
    short = ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--data.nsamples=32"]
    done = subprocess.run(
        [*command, f"--trainer.default_root_dir={root}", *short, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def decisions(root: Path) -> dict[str, torch.Tensor]:
    """Everything that a run's plans decided, as its last model says."""
    plan = Plan.load(root / "recovered")
    kept = {f"{k} {i}": u.index_U for k in plan.kinds for i, u in plan.blocks(k).items()}
    return kept | {name: plan.mask(name) for name in plan.mask_names}


def test_two_processes_decide_train_and_save_as_one(tmp_path: Path) -> None:
    """Units cut and weights masked alike, bit for bit, equal perplexity, and whole folders."""
    for name, arguments in STRATEGIES.items():
        fit(tmp_path / name, *MASKS, *arguments)
    alone = decisions(tmp_path / "one process")
    assert {tensor.dtype for tensor in alone.values()} == {torch.int64, torch.bool}
    expected = json.loads((tmp_path / "one process" / "report.json").read_text())["stages"]
    for name in ("ddp", "fsdp2"):
        found = decisions(tmp_path / name)
        assert found.keys() == alone.keys()
        for key, tensor in found.items():
            torch.testing.assert_close(tensor, alone[key], rtol=0, atol=0, msg=f"{name}: {key}")
        stages = json.loads((tmp_path / name / "report.json").read_text())["stages"]
        assert stages["pruned"]["perplexity"] == expected["pruned"]["perplexity"]
        # Two processes take twice the batch a step, so they recover a little more.
        assert stages["recovered"]["perplexity"] < stages["pruned"]["perplexity"]
        recovered = lightning_prune.load(tmp_path / name / "recovered")
        assert sum(p.numel() for p in recovered.parameters()) == stages["recovered"]["parameters"]


@pytest.mark.parametrize("setup", ["ddp lora", "ddp qlora", "fsdp2 lora", "fsdp2 dense"])
def test_two_processes_go_on_as_if_nothing_had_happened(
    tmp_path: Path, model_folder: Path, text_file: Path, setup: str
) -> None:
    """Same plan, same losses, same weights; zeros stay, and another plan is refused in both.

    What is merged are the weights that a checkpoint was asked to keep, which are not the last.
    """
    arguments = [str(tmp_path), str(model_folder), str(text_file), setup]
    done = subprocess.run(
        [sys.executable, "-m", "tests.lightning.resumed_fit", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["rest"]) == ["3"]
    assert result["rest"]["3"] == result["full"]["3"]
    assert result["held"]
    assert "the checkpoint was made with the pruning plan" in result["refused"]
    full, cut = (lightning_prune.load(tmp_path / name / "recovered") for name in ("full", "cut"))
    torch.testing.assert_close(cut.state_dict(), full.state_dict(), rtol=0, atol=0)
    plan = Plan.load(tmp_path / "full" / "recovered")
    assert all((full.get_parameter(n)[~plan.mask(n)] == 0).all() for n in plan.mask_names)
    stages = json.loads((tmp_path / "cut" / "report.json").read_text())["stages"]
    assert list(stages) == ["dense", "pruned", "recovered"]
    assert "those of step 1, of 3 in all" in done.stdout + done.stderr
