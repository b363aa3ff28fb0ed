"""A run that is stopped by Ctrl-C says how to go on."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.cli import main
from lightning_prune.models import CausalLM


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Lightning ignores Ctrl-C once it was pressed; after the test it works again."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
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


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_before_the_first_checkpoint_says_so(
    run: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """While pruning, there is none."""

    def press(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_prune.pipeline.prune", press)
    with pytest.raises(SystemExit):
        run("prune", "--config=quickstart-wanda.yaml")
    said = capfd.readouterr().err
    assert "lightning-prune: interrupted; there is no checkpoint yet. Start again" in said
    assert "lightning-prune prune --config run/config.yaml" in said
