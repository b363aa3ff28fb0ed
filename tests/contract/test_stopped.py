"""Pruning that was stopped goes on behind the last block that it had finished."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lightning_prune import FLAP, OWL, ResidualFit, SparseGPT, Wanda, load, save
from lightning_prune.pipeline import prune
from lightning_prune.pipeline.unfinished import Unfinished
from tests.contract.cases import CASES, Case, assert_same_state, batches, even_model, state
from tests.contract.marks import alternately


class Killed(Exception):
    """What ends a process."""


class Keeping:
    """Watches what is kept, and ends the process behind some step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[Mapping[str, Any]] = []
        self.stop_after: int | None = None
        put = Unfinished.put

        def watched(unfinished: Unfinished, step: Mapping[str, Any], *args: Any) -> None:
            if len(self.steps) == self.stop_after:
                raise Killed
            put(unfinished, step, *args)
            self.steps.append(step)

        monkeypatch.setattr(Unfinished, "put", watched)

    def begin(self, stop_after: int | None = None) -> None:
        self.steps.clear()
        self.stop_after = stop_after


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> Keeping:
    return Keeping(monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "where"), alternately(CASES, ["half", "first", "last"]), ids=str)
def test_what_is_finished_is_not_done_again(
    case: Case, where: str, keeping: Keeping, tmp_path: Path
) -> None:
    """The result is that of a run that was never stopped, wherever it was."""
    whole = even_model("llama")
    plan = prune(whole, case.make(keep_scores=True), batches(), resume=tmp_path / "whole")
    steps = list(keeping.steps)
    assert not (tmp_path / "whole").exists()
    folder = tmp_path / "stopped"
    done = {"half": len(steps) // 2, "first": 1, "last": len(steps) - 1}[where]
    keeping.begin(done)
    with pytest.raises(Killed):
        prune(even_model("llama"), case.make(keep_scores=True), batches(), resume=folder)
    keeping.begin()
    model = even_model("llama")
    again = prune(model, case.make(keep_scores=True), batches(), resume=folder)
    assert len(keeping.steps) <= len(steps)
    if "scores" not in str(steps[done - 1]):  # gradients come of all blocks at once
        assert keeping.steps == steps[done:]
    assert again.fingerprint() == plan.fingerprint()
    assert again.score_keys == plan.score_keys
    assert again.mask_names == plan.mask_names
    assert_same_state(model, state(whole))
    assert not folder.exists()


@pytest.mark.parametrize(
    "method",
    [
        Wanda(sparsity=0.29, allocation=OWL()),
        SparseGPT(sparsity=0.29),
        ResidualFit(sparsity=0.29),
        FLAP(ratio=0.3),
    ],
    ids=repr,
)
def test_a_model_in_its_files_goes_on(method: Any, keeping: Keeping, tmp_path: Path) -> None:
    """From the files as they were before; those of the run that was stopped are taken away."""
    save(even_model("llama"), tmp_path / "model")
    whole = load(tmp_path / "model")
    plan = prune(whole, method, batches())
    arguments: dict[str, Any] = {"placement": "checkpoint", "changes": tmp_path / "changes"}
    keeping.begin(stop_after=2)
    model = load(tmp_path / "model", **arguments)
    with pytest.raises(Killed):
        prune(model, method, batches(), resume=tmp_path / "unfinished")
    del model
    keeping.begin()
    model = load(tmp_path / "model", **arguments)
    again = prune(model, method, batches(), resume=tmp_path / "unfinished")
    assert again.fingerprint() == plan.fingerprint()
    assert_same_state(model, state(whole))
    del model
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_blocks_of_another_call_are_refused(keeping: Keeping, tmp_path: Path) -> None:
    """It is said what differs, and they are left."""
    keeping.begin(stop_after=1)
    with pytest.raises(Killed):
        prune(even_model("llama"), Wanda(sparsity=0.3), batches(), resume=tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"differs in method .*0.3.*0.4.*delete this one"):
        prune(even_model("llama"), Wanda(sparsity=0.4), batches(), resume=tmp_path)
    with pytest.raises(ValueError, match="differs in calibration"):
        prune(even_model("llama"), Wanda(sparsity=0.3), batches(total=2), resume=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_hidden_states_of_other_hardware_are_told(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The run goes on, with a line."""
    keeping.begin(stop_after=1)
    with pytest.raises(Killed):
        prune(even_model("llama"), Wanda(sparsity=0.3), batches(), resume=tmp_path)
    keeping.begin()
    monkeypatch.setattr("lightning_prune.sweep.HiddenStates.checksum", lambda self: 1)
    with caplog.at_level(logging.WARNING, "lightning_prune.pipeline.unfinished"):
        prune(even_model("llama"), Wanda(sparsity=0.3), batches(), resume=tmp_path)
    assert "model.layers.0 are not those of the run that was stopped" in caplog.text


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """Before anything is calibrated."""
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ValueError, match="mine is a file; give the name of a folder"):
        prune(even_model("llama"), Wanda(sparsity=0.3), batches(), resume=tmp_path / "mine")
