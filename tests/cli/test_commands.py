"""What the commands that do not train leave, print, and leave alone."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_prune import CausalLM, LoRA, TextData, Wanda
from lightning_prune.cli import PruneTrainer, main
from lightning_prune.data import text_data


def test_prune_changes_nothing_of_the_trainer_and_reads_no_training_text(
    model_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither limits, nor callbacks, nor the adapter; training afterwards is possible."""
    used: list[str] = []
    read = text_data.read
    monkeypatch.setattr(
        text_data,
        "read",
        lambda source, split, *a: (used.append(split), read(source, split, *a))[1],
    )
    adapter = LoRA(r=2)
    module = CausalLM(str(model_folder), adapter=adapter)
    data = TextData(str(text_file), seqlen=32, nsamples=8, batch_size=8)
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


def test_help_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """What the program is, what each command does, and those without a configuration."""
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("usage: lightning-prune ")
    assert "Prune Hugging Face causal language models" in said
    assert "Prune, recover by training, validate and save." in said
    for command in ("evaluate", "measure", "export", "generate", "sparsity", "compare", "analyze"):
        assert command in said.partition("take no configuration")[2]
    assert "Lightning Trainer command line tool" not in said


# --- sparsity ---


def test_sparsity_prints_a_table_and_writes_json(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per block, per kind, both totals, the pattern and the plan."""
    method = ["--trainer.callbacks=Wanda", "--trainer.callbacks.pattern=1:2"]
    root = run("prune", *method)
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "100")
    main(["sparsity", str(root / "pruned"), "--json", "zeros.json", "--pattern", "1:2"])
    said = capsys.readouterr().out
    for expected in (
        *("down_proj", "q_proj", "mlp.up_proj", "row min"),
        "blocks' Linears   50.0% zero",
        "all parameters    ",
        "pattern           1:2 everywhere",
        "plan              agrees: all that its 21 masks remove is zero",
        "zeros.json",
    ):
        assert expected in said, said
    found = json.loads((tmp_path / "zeros.json").read_text())
    assert (found["pattern"], found["linear"]["sparsity"]) == ("1:2", 0.5)


def test_sparsity_tells_a_disagreement(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Zeros that were lost since the plan was made."""
    from safetensors.torch import load_file, save_file

    root = run("prune", "--config=quickstart-wanda.yaml")
    path = root / "pruned" / "model.safetensors"
    tensors = {name: torch.ones_like(t) for name, t in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    main(["sparsity", str(root / "pruned")])
    said = capsys.readouterr().out
    assert "plan              DISAGREES" in said
    assert "pattern           none of 1:4, 2:4, 4:8" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no model at 'nothing'"),
        ([], "the following arguments are required: path"),
        ([".", "--pattern", "4:2"], "pattern 4:2 would keep 4 of 2"),
        (["."], "has no weights"),
    ],
)
def test_a_mistake_of_sparsity_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As in all commands."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(["sparsity", *arguments])
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("lightning-prune: error: ")
    assert message in said
    assert said.count("\n") == 1
