"""Whole runs of a Trainer on one GPU: pruning, recovery, resuming, saving."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

import lightning_prune
from lightning_prune import (
    CausalLM,
    Distillation,
    Evaluate,
    GQATaylor,
    LoRA,
    QLoRA,
    SavePretrained,
    SparseGPT,
    Wanda,
    WriteReport,
)
from tests.gpu.device import DEVICE, on_gpu
from tests.lightning.runs import Losses, checkpoints, make_data

# bitsandbytes says so of Linears as small as these, whose inputs are no multiple of 64.
pytestmark = [*on_gpu, pytest.mark.filterwarnings("ignore:inner dimension:UserWarning")]
ACCELERATOR = "cpu" if DEVICE.type == "cpu" else "gpu"


def make_trainer(root: Path, *callbacks: Callback, steps: int = 6, **settings: Any) -> Trainer:
    return Trainer(
        default_root_dir=root,
        max_steps=steps,
        callbacks=list(callbacks),
        accelerator=ACCELERATOR,
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize(
    "adapter", [None, LoRA(dropout=0.1), QLoRA(dropout=0.1)], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize(
    "method",
    [GQATaylor(ratio=0.25), Wanda(sparsity=0.5), SparseGPT(pattern="2:4", exclude=["*.down_proj"])],
    ids=repr,
)
def test_a_run_prunes_recovers_and_saves(
    tmp_path: Path, model_folder: Path, text_file: Path, method: Any, adapter: Any, precision: str
) -> None:
    """What is saved loads on the CPU, with its zeros; the report is there."""
    losses, method = Losses(), type(method)(**method.arguments)
    module = CausalLM(str(model_folder), adapter=adapter, learning_rate=1e-2)
    observers = [losses, SavePretrained(), WriteReport(prompt=4), Evaluate(texts=[str(text_file)])]
    trainer = make_trainer(tmp_path, method, *observers, precision=precision)
    trainer.fit(module, make_data(text_file))
    assert len(losses.values) == 6
    assert all(value == value for value in losses.values.values())
    model = lightning_prune.load(tmp_path / "recovered")
    plan = lightning_prune.Plan.load(tmp_path / "plan")
    weights = dict(model.named_parameters())
    for name in plan.mask_names:
        assert not weights[name][~plan.mask(name)].any()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report


def test_a_teacher_on_the_gpu(tmp_path: Path, model_folder: Path, text_file: Path) -> None:
    """The dense model, held beside the student."""
    losses = Losses()
    module = CausalLM(str(model_folder), distillation=Distillation(hidden=0.5), learning_rate=1e-2)
    make_trainer(tmp_path, GQATaylor(ratio=0.25), losses).fit(module, make_data(text_file))
    assert len(losses.values) == 6


@pytest.mark.parametrize("adapter", [None, LoRA(dropout=0.2), QLoRA(dropout=0.2)])
def test_an_interrupted_fit_goes_on(
    tmp_path: Path, model_folder: Path, text_file: Path, adapter: Any
) -> None:
    """Same losses as without interruption, but for what a GPU adds up in another order."""
    full, first, second = Losses(), Losses(stop_after=3), Losses()

    def fit(root: Path, losses: Losses, **settings: Any) -> None:
        torch.manual_seed(len(settings))  # the checkpoint brings the run's own seed
        module = CausalLM(str(model_folder), adapter=adapter, learning_rate=1e-2)
        trainer = make_trainer(root, GQATaylor(ratio=0.25), losses, checkpoints(root))
        trainer.fit(module, make_data(text_file), **settings)

    fit(tmp_path / "full", full)
    with pytest.raises(SystemExit):
        fit(tmp_path / "cut", first)
    fit(tmp_path / "cut", second, ckpt_path=str(tmp_path / "cut" / "checkpoints" / "last.ckpt"))
    assert sorted(second.values) == [4, 5, 6]
    for step, loss in second.values.items():
        assert loss == pytest.approx(full.values[step], rel=1e-4)


@pytest.mark.slow
def test_the_quickstart_runs_on_a_gpu(tmp_path: Path) -> None:
    """By the command, with the speed that a GPU is measured by."""
    command = [sys.executable, "-m", "lightning_prune", "fit", "--config=quickstart.yaml"]
    command += [f"--trainer.accelerator={ACCELERATOR}", f"--trainer.default_root_dir={tmp_path}"]
    done = subprocess.run(
        [*command, "--trainer.max_epochs=1"],
        env={**os.environ, "PYTHONWARNINGS": "default"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "recovered" / "model.safetensors").is_file()


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs two kinds of devices")
def test_generations_and_losses_of_a_pruned_model_on_the_gpu(model_folder: Path) -> None:
    """A cut model computes on the GPU what it does on the CPU."""
    model = lightning_prune.load(model_folder)
    data = [{"input_ids": torch.arange(3, 35).reshape(2, 16)}]
    lightning_prune.prune(model, GQATaylor(ratio=0.4), data, device=DEVICE)
    here = model(**data[0]).logits
    there = model.to(DEVICE)(input_ids=data[0]["input_ids"].to(DEVICE)).logits
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)
