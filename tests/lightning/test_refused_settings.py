"""Settings that Lightning refuses when training starts are refused before anything is pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    DeviceStatsMonitor,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger

from lightning_prune import CausalLM, DropBlocks, Wanda
from lightning_prune.callbacks.early import check_training
from lightning_prune.cli import main
from tests.lightning.runs import make_data, make_trainer


def test_a_validation_that_never_comes_is_refused_before_pruning(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """An epoch has fewer batches."""
    trainer = make_trainer(tmp_path, Wanda(sparsity=0.5), val_check_interval=5000)
    with pytest.raises(ValueError, match=r"val_check_interval=5000 is more than the \d+ batches"):
        trainer.fit(CausalLM(str(model_folder)), make_data(text_file))
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize("limit", ["limit_train_batches", "limit_val_batches", "overfit_batches"])
def test_a_share_without_a_batch_is_refused_before_pruning(
    tmp_path: Path, model_folder: Path, text_file: Path, limit: str
) -> None:
    """Lightning refuses it when training starts."""
    trainer = make_trainer(tmp_path, Wanda(sparsity=0.5), **{limit: 1e-4})
    with pytest.raises(ValueError, match=rf"{limit}=0.0001 of \d+ batches is less than one"):
        trainer.fit(CausalLM(str(model_folder)), make_data(text_file))
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("asked", "settings", "said"),
    [
        ({}, {"accumulate_grad_batches": 0}, "accumulate_grad_batches=0; a step takes one batch"),
        ({}, {"val_check_interval": 0}, "val_check_interval=0; .* set trainer.limit_val_batches=0"),
        ({}, {"check_val_every_n_epoch": 0}, "check_val_every_n_epoch=0; to train without valida"),
        ({}, {"gradient_clip_val": -1.0}, "gradient_clip_val=-1.0; 0 .* or more"),
        ({}, {"gradient_clip_val": float("nan")}, "gradient_clip_val=nan; 0 .* or more"),
        ({"schedule": "linear"}, {"steps": -1, "max_epochs": -1}, "needs the number of training s"),
    ],
    ids=[
        "no batch makes a step",
        "no interval",
        "no epochs",
        "turned round",
        "no number",
        "falling without an end",
    ],
)
def test_a_training_that_cannot_be_is_refused_before_pruning(
    tmp_path: Path,
    model_folder: Path,
    text_file: Path,
    asked: dict[str, Any],
    settings: dict[str, Any],
    said: str,
) -> None:
    """Not when the optimizer is made, or takes a step."""
    trainer = make_trainer(tmp_path, Wanda(sparsity=0.5), **settings)
    with pytest.raises(ValueError, match=said):
        trainer.fit(CausalLM(str(model_folder), **asked), make_data(text_file))
    assert not (tmp_path / "plan").exists()


MISFITS: dict[str, tuple[Callback, dict[str, Any], str]] = {
    "checkpoint": (
        ModelCheckpoint(monitor="perplexity"),
        {},
        "ModelCheckpoint monitors 'perplexity', which nothing logs. Did you mean val_perplexity. "
        "Logged are val_perplexity, val_loss, train_loss",
    ),
    "file name": (
        ModelCheckpoint(monitor="val_loss", filename="{step}-{val_los:.2f}"),
        {},
        "ModelCheckpoint names its files by 'val_los', .* mean val_loss",
    ),
    "early stopping": (
        EarlyStopping(monitor="accuracy"),
        {},
        "EarlyStopping monitors 'accuracy', which nothing logs. Logged are val_perplexity",
    ),
    "no teacher": (EarlyStopping(monitor="train_kl"), {}, "'train_kl', which nothing logs"),
    "rates": (LearningRateMonitor(), {}, "LearningRateMonitor writes to a logger"),
    "device": (DeviceStatsMonitor(), {}, "DeviceStatsMonitor writes to a logger"),
    "backbone": (BackboneFinetuning(), {}, "`backbone`, and CausalLM has none"),
    "batches of a step": (
        GradientAccumulationScheduler({0: 2}),
        {"accumulate_grad_batches": 2},
        "GradientAccumulationScheduler and trainer.accumulate_grad_batches=2 both say",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_a_callback_that_cannot_work_is_refused_before_pruning(
    tmp_path: Path, model_folder: Path, text_file: Path, kind: str
) -> None:
    """Lightning says it when training starts or ends, or writes a 0 into a file's name."""
    callback, settings, said = MISFITS[kind]
    trainer = make_trainer(tmp_path, Wanda(sparsity=0.5), callback, **settings)
    with pytest.raises(ValueError, match=said):
        trainer.fit(CausalLM(str(model_folder)), make_data(text_file))
    assert not (tmp_path / "plan").exists()


class LogsMore(Callback):
    """Logs something that the module does not."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        pl_module.log("train_more", float(trainer.global_step))


def test_what_is_logged_can_be_monitored(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """By the module, by a callback of one's own, or by Lightning's of learning rates."""
    named = ModelCheckpoint(tmp_path / "a", monitor="step", mode="max", filename="{val_loss:.2f}")
    own = ModelCheckpoint(tmp_path / "b", monitor="train_more", mode="max", filename="own")
    for callbacks in ([named], [own, LogsMore()]):
        trainer = make_trainer(tmp_path, DropBlocks(count=1), *callbacks, steps=2)
        trainer.fit(CausalLM(str(model_folder)), make_data(text_file))
    assert (tmp_path / "b" / "own.ckpt").is_file()
    rate = ModelCheckpoint(tmp_path / "c", monitor="lr-AdamW/pg1", every_n_train_steps=1)
    callbacks = [DropBlocks(count=1), LearningRateMonitor(), rate]
    trainer = make_trainer(tmp_path, *callbacks, steps=2, log_every_n_steps=1)
    trainer.loggers = [CSVLogger(tmp_path)]
    trainer.fit(CausalLM(str(model_folder), learning_rate=1e-3), make_data(text_file))
    assert float(rate.best_model_score) == pytest.approx(1e-3)


def test_validation_is_compared_with_the_batches_of_a_process(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaders of a TextData are shared out already: of two processes each has half, no less."""
    data = make_data(text_file)
    trainer = make_trainer(tmp_path, DropBlocks(count=1), steps=0)
    module = CausalLM(str(model_folder))
    trainer.fit(module, data)
    monkeypatch.setattr(Trainer, "world_size", 2)
    half = len(data.train_dataloader())
    trainer.val_check_interval = half
    check_training(trainer, module)
    trainer.val_check_interval = half + 1
    with pytest.raises(ValueError, match=f"{half + 1} is more than the {half} batches"):
        check_training(trainer, module)


def test_without_training_its_intervals_do_not_matter(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """As where `prune` is given the configuration of `fit`, or nothing is validated."""
    for limit in ("limit_train_batches", "limit_val_batches"):
        settings: dict[str, Any] = {limit: 0, "val_check_interval": 5000}
        trainer = make_trainer(tmp_path, DropBlocks(count=1), steps=1, **settings)
        module = CausalLM(str(model_folder))
        trainer.fit(module, make_data(text_file))
        assert len(module.plans) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--trainer.val_check_interval=5000"], "val_check_interval=5000 is more than"),
        (["--trainer.val_check_interval=1.5"], "refuses trainer.val_check_interval=1.5: You have"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=perplexity"],
            "EarlyStopping monitors 'perplexity', which nothing logs. Did you mean val_perplexity?",
        ),
        (["--ckpt_path=best"], "is not configured to save the best model"),
        (["--ckpt_path=hpc"], "no HPC checkpoint was found"),
        (["--ckpt_path=text.txt"], "text.txt is no Lightning checkpoint"),
    ],
    ids=["val_check_interval", "no share", "monitor", "best", "hpc", "no checkpoint"],
)
def test_the_command_says_it_in_one_line(
    tmp_path: Path,
    model_folder: Path,
    text_file: Path,
    more: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With status 2, and nothing is pruned."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("no checkpoint")
    arguments = ["fit", f"--model.path={model_folder}", f"--data.source={text_file}"]
    arguments += ["--data.nsamples=8", "--data.length=32", "--data.batch_size=4"]
    arguments += ["--trainer.callbacks+=Wanda", "--trainer.callbacks.sparsity=0.5"]
    arguments += ["--trainer.accelerator=cpu", "--trainer.max_steps=2"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *more])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs" / "plan").exists()
