"""A command, run as a user types it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.cli import main


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast a tiny model generates is not what commands are tested for."""
    monkeypatch.setattr("lightning_prune.callbacks.observers.measuring.RUNS", 1)
    monkeypatch.setattr("lightning_prune.callbacks.observers.measuring.NEW_TOKENS", 2)


@pytest.fixture
def run(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Runs a command on the tiny model and text, in an empty folder; gives the run's folder."""
    monkeypatch.chdir(tmp_path)

    def run(
        command: str, *arguments: str, model: Path | None = model_folder, own: Sequence[str] = ()
    ) -> Path:
        small = [
            f"--data.source={text_file}",
            "--data.nsamples=8",
            "--data.length=32",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
            "--trainer.log_every_n_steps=1",
            "--trainer.default_root_dir=run",
        ]
        small += [f"--model.path={model}"] if model is not None else []
        main([command, *arguments, *small, *own])
        return tmp_path / "run"

    return run
