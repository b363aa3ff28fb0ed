"""What the commands that do not train leave, print, and leave alone."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_prune import CausalLM, LoRA, TextData, Wanda
from lightning_prune.commands.trainer import PruneTrainer
from lightning_prune.data import texts


def test_prune_changes_nothing_of_the_trainer_and_reads_no_training_text(
    model_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither limits, nor callbacks, nor the adapter; training afterwards is possible."""
    used: list[str] = []
    read = texts.read
    monkeypatch.setattr(
        texts,
        "read",
        lambda source, split, *a, **k: (used.append(split), read(source, split, *a, **k))[1],
    )
    adapter = LoRA(r=2)
    module = CausalLM(str(model_folder), adapter=adapter)
    data = TextData(str(text_file), length=32, nsamples=8, batch_size=8)
    callbacks = [Wanda(sparsity=0.5)]
    trainer = PruneTrainer(
        accelerator="cpu",
        max_steps=2,
        limit_val_batches=1,
        callbacks=list(callbacks),
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    before = [type(callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    with isolate_rng():
        trainer.prune(module, data)
    assert used == ["validation", "train"]  # "train" is what calibration takes windows of
    assert "train" not in data.windows
    assert module.adapter is adapter
    assert not any("lora" in name for name, _ in module.named_parameters())
    assert (trainer.max_steps, trainer.max_epochs, trainer.limit_val_batches) == (2, None, 1)
    assert trainer.limit_train_batches == 1.0
    assert [type(callback) for callback in trainer.callbacks] == before  # type: ignore[attr-defined]
    trainer.fit(module, data)
    assert trainer.global_step == 2


def test_prune_does_not_speak_of_training(
    run: Any, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """No `max_steps=0`, no advice on epochs."""
    run("prune", "--config=quickstart-wanda.yaml")
    said = capfd.readouterr()
    for word in ("max_steps", "max_epochs", "Trainer.fit", "train_dataloader"):
        assert word not in said.out + said.err
    assert not list(recwarn)


def test_predict_writes_and_says_what_test_measures(
    run: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """A row a window; the mean is the perplexity of `test`."""
    root = run("predict", own=["--data.batch_size=8"])
    said = capfd.readouterr().out
    with open(root / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["window"]) for row in rows] == list(range(len(rows)))
    assert {row["tokens"] for row in rows} == {"31"}
    for row in rows:
        assert float(row["perplexity"]) == pytest.approx(math.exp(float(row["nll"])), rel=1e-4)
    mean = math.exp(sum(float(row["nll"]) for row in rows) / len(rows))
    assert f"{len(rows)} windows" in said
    assert f"perplexity {mean:.2f}" in said
    run("test")
    assert f"{int(mean)}." in capfd.readouterr().out
