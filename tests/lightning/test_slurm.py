"""A job that SLURM ends and queues again goes on where it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_prune import CausalLM, Distillation, GQATaylor, Wanda
from lightning_prune.cli import main
from tests.lightning.runs import Losses, make_data, make_trainer
from tests.models.test_causal_lm import QUIET

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore:The `srun` command is available")]

SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "recovery",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NODELIST": "localhost",
}


@pytest.fixture
def requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of one task; the file says what scontrol was asked for."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    scontrol, asked = tmp_path / "bin" / "scontrol", tmp_path / "asked"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {asked}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    return asked


class TimeIsUp(Callback):
    """What SLURM does some time before it ends a job."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)


def fit(root: Path, model: Path, text: Path, losses: Losses, *callbacks: Callback) -> CausalLM:
    torch.manual_seed(0)
    module = CausalLM(str(model), distillation=Distillation(), learning_rate=1e-2)
    callbacks = (GQATaylor(ratio=0.25), losses, *callbacks)
    trainer = make_trainer(root, *callbacks, steps=5, limit_val_batches=1, devices=1)
    trainer.fit(module, make_data(text))
    return module


def test_a_requeued_job_goes_on_with_the_same_losses(
    tmp_path: Path, model_folder: Path, text_file: Path, requeued: Path
) -> None:
    """The same command in the same folder: plan, weights, optimizer and place in the text."""
    whole = Losses()
    expected = fit(tmp_path / "whole", model_folder, text_file, whole)
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", model_folder, text_file, Losses(stop_after=3), TimeIsUp())
    assert requeued.read_text() == "requeue 17\n"
    rest = Losses()
    found = fit(tmp_path / "run", model_folder, text_file, rest)
    assert list(rest.values) == [3, 4, 5]
    assert rest.values == {step: whole.values[step] for step in rest.values}
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


# --- the command line ---


@pytest.fixture
def signals() -> Iterator[None]:
    """After the test they are handled as before."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def command(name: str, root: Path, model: Path, text: Path) -> list[str]:
    short = ["--data.nsamples=8", "--data.length=32", "--data.batch_size=4", "--trainer.devices=1"]
    where = [f"--model.path={model}", f"--data.source={text}", f"--trainer.default_root_dir={root}"]
    wanda = ["--trainer.callbacks=Wanda", "--trainer.callbacks.sparsity=0.5"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    quiet += ["--trainer.max_steps=2", "--trainer.log_every_n_steps=1"]
    return [name, *where, *short, *wanda, *quiet]


def run_until(signum: int, arguments: list[str]) -> None:
    """Run a command that ends with a signal's status."""
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 128 + signum


def signalled(method: Any, *signums: int) -> Any:
    """A method before which a process gets signals."""

    def method_and_signals(*args: Any, **kwargs: Any) -> Any:
        for signum in signums:
            assert signal.getsignal(signum) is not signal.SIG_DFL
            os.kill(os.getpid(), signum)
        return method(*args, **kwargs)

    return method_and_signals


@pytest.mark.usefixtures("signals")
def test_a_job_whose_time_is_up_while_it_prunes_is_queued_again(
    tmp_path: Path,
    model_folder: Path,
    text_file: Path,
    requeued: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Lightning has no checkpoint then, and would do nothing; nothing half written is left."""
    prune = signalled(Wanda.prune_block, signal.SIGUSR1)
    monkeypatch.setattr(Wanda, "prune_block", prune)
    run_until(signal.SIGUSR1, command("fit", tmp_path / "run", model_folder, text_file))
    assert requeued.read_text() == "requeue 17\n"
    assert "stopped by SIGUSR1, and job 17 is queued again; nothing" in capfd.readouterr().err
    assert not list((tmp_path / "run").rglob(".*"))


@pytest.mark.usefixtures("signals")
def test_a_job_whose_time_is_up_while_it_trains_is_lightning_s(
    tmp_path: Path,
    model_folder: Path,
    text_file: Path,
    requeued: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It writes a checkpoint, from which the same command goes on; then SLURM ends the job."""
    step = signalled(CausalLM.training_step, signal.SIGUSR1, signal.SIGTERM)
    monkeypatch.setattr(CausalLM, "training_step", step)
    run_until(signal.SIGTERM, command("fit", tmp_path / "run", model_folder, text_file))
    assert requeued.read_text() == "requeue 17\n"
    said = capfd.readouterr().err
    assert "the last checkpoint is" in said
    assert "hpc_ckpt_1.ckpt: the same command again goes on there" in said
