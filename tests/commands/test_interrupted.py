"""A run that is stopped by Ctrl-C, or a signal, says how to go on."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_prune import SparseGPT
from lightning_prune.cli import main
from lightning_prune.models import CausalLM


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """What has stopped a run once is ignored while it ends; after the test it works again."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def at_call(number: int, method: Any, act: Any) -> Any:
    """A method that does something else first when it is called for that time."""
    calls: list[int] = []

    def method_and_act(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            act()
        return method(*args, **kwargs)

    return method_and_act


def terminate() -> None:
    """SIGTERM, as `kill` sends it."""
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    os.kill(os.getpid(), signal.SIGTERM)


def test_after_ctrl_c_the_way_to_go_on_is_said_and_works(
    run: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The last checkpoint and the command; which continues."""
    step = CausalLM.training_step
    pressed: list[int] = []

    def once(self: CausalLM, batch: Any, batch_idx: int) -> Any:
        if (self.current_epoch, batch_idx) == (1, 1) and not pressed:
            pressed.append(1)
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CausalLM, "training_step", once)
    arguments = ["--config=quickstart.yaml", "--trainer.max_epochs=2", "--data.batch_size=32"]
    with pytest.raises(SystemExit):
        run("fit", *arguments)
    said = re.search(r"lightning-prune: (interrupted at step \d+; .*)", capfd.readouterr().err)
    assert said is not None
    command = said[1].partition("Go on with: lightning-prune ")[2].split()
    assert command[:3] == ["fit", "--config", "run/config.yaml"]
    assert Path(command[4]).name == "last.ckpt"
    main(command)
    assert Path("run/recovered/model.safetensors").exists()


def test_ctrl_c_before_the_first_checkpoint_says_so(
    run: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """While pruning, there is none; and no configuration that could be named yet."""

    def press(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_prune.pipeline.prune", press)
    with pytest.raises(SystemExit):
        run("prune", "--config=quickstart-wanda.yaml")
    said = capfd.readouterr().err
    assert "lightning-prune: interrupted; nothing was finished yet, and the same command" in said


def test_pruning_that_sigterm_ends_goes_on(
    run: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line and the usual status; the same command comes to the bytes of a whole run."""
    command = ("prune", "--trainer.callbacks=SparseGPT", "--trainer.callbacks.sparsity=0.5")
    whole = run(*command).rename("whole")
    real = SparseGPT.prune_block
    monkeypatch.setattr(SparseGPT, "prune_block", at_call(2, real, terminate))
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit:
        run(*command)
    said = capfd.readouterr().err
    assert exit.value.code == 143
    assert said.count("lightning-prune: ") == 1
    assert (
        "lightning-prune: stopped by SIGTERM; run/plan-unfinished is kept: the same command "
        "again goes on there\n" in said
    )
    assert "Traceback" not in said
    monkeypatch.setattr(SparseGPT, "prune_block", real)
    again = run(*command)
    assert not list(again.rglob(".*"))
    for name in ("pruned/model.safetensors", "plan/plan.safetensors"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()


def test_training_that_sigterm_ends_says_where_its_checkpoint_is(
    run: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lightning ends it behind a batch, with status 0; the command's is that of the signal."""
    step = at_call(3, CausalLM.training_step, terminate)
    monkeypatch.setattr(CausalLM, "training_step", step)
    keep = ["ModelCheckpoint", "every_n_train_steps=1", "save_last=true"]
    last = ["--trainer.callbacks+=" + keep[0], *(f"--trainer.callbacks.{k}" for k in keep[1:])]
    with pytest.raises(SystemExit) as exit:
        run("fit", "--config=quickstart.yaml", "--trainer.max_epochs=2", own=last)
    assert exit.value.code == 143
    said = capfd.readouterr().err
    assert re.search(r"prune: stopped by SIGTERM at step 3; the last checkpoint is .*\.ckpt", said)


@pytest.mark.parametrize("command", ["validate", "predict"])
def test_sigterm_ends_at_once_what_lightning_would_bring_to_an_end(
    command: str, run: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is lost by it."""
    name = {"validate": "validation_step", "predict": "predict_step"}[command]
    monkeypatch.setattr(CausalLM, name, at_call(1, getattr(CausalLM, name), terminate))
    with pytest.raises(SystemExit) as exit:
        run(command)
    assert exit.value.code == 143
    assert "stopped by SIGTERM; nothing half done is left" in capfd.readouterr().err
