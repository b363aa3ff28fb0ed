"""Runs whose model stays in its files, and runs that are stopped while they prune."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
from lightning.pytorch import seed_everything

from lightning_prune import (
    CausalLM,
    GQATaylor,
    LoRA,
    Plan,
    SavePretrained,
    SparseGPT,
    WriteReport,
)
from lightning_prune.methods.base import Decision
from tests.lightning.runs import make_data, make_trainer

SAVED = ("pruned/model.safetensors", "recovered/model.safetensors", "plan/plan.safetensors")


def run(root: Path, model: Path, text: Path, *methods: Any, **settings: Any) -> None:
    """Prune and train for two steps."""
    seed_everything(0, verbose=False)
    module = CausalLM(str(model), adapter=LoRA(r=2), **settings)
    make_trainer(root, *methods, SavePretrained(), steps=2).fit(module, make_data(text))


def same(first: Path, second: Path) -> None:
    for name in SAVED:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.parametrize(
    "make", [lambda: GQATaylor(ratio=0.25), lambda: SparseGPT(sparsity=0.5)], ids=["cut", "masked"]
)
def test_a_model_in_its_files_is_pruned_and_trained(
    make: Any, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """To the same bytes as one in memory; its files of changes are gone afterwards."""
    for placement in ("memory", "checkpoint"):
        run(tmp_path / placement, model_folder, text_file, make(), placement=placement)
    same(tmp_path / "memory", tmp_path / "checkpoint")
    gc.collect()  # a Trainer, its callbacks and its module hold each other
    assert not (tmp_path / "checkpoint" / "weights").exists()


class Stopped(SparseGPT):
    """Stops in front of its last block while `stops`; notes the blocks that it has pruned."""

    stops: ClassVar[bool] = True
    done: ClassVar[list[int]] = []

    def prune_block(self, block: Any, *args: Any) -> tuple[Decision, Any]:
        if block.index == 2 and self.stops:
            raise RuntimeError("power cut")
        self.done.append(block.index)
        return super().prune_block(block, *args)


@pytest.fixture
def stopped(
    tmp_path: Path, model_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder of a run that was stopped behind its second block, and is not stopped again."""
    monkeypatch.setattr(Stopped, "done", [])
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "stopped", model_folder, text_file, Stopped(sparsity=0.5))
    assert (tmp_path / "stopped" / "plan-unfinished").is_dir()
    monkeypatch.setattr(Stopped, "stops", False)
    return tmp_path / "stopped"


def test_another_method_is_refused_where_one_was_stopped(
    stopped: Path, model_folder: Path, text_file: Path
) -> None:
    """Before the dense model is measured."""

    class Measures(WriteReport):
        def on_prune_start(self, *_: Any) -> None:
            pytest.fail("measured")

    with pytest.raises(ValueError, match=r"differs in arguments .*delete this one"):
        run(stopped, model_folder, text_file, Stopped(sparsity=0.4), Measures())


def test_scores_that_were_not_kept_are_made_again(
    stopped: Path, model_folder: Path, text_file: Path
) -> None:
    """A run that asks for them has those of all blocks."""
    run(stopped, model_folder, text_file, Stopped(sparsity=0.5, keep_scores=True))
    plan = Plan.load(stopped / "plan")
    assert len(plan.score_keys) == len(plan.mask_names) == 3 * 7


def test_a_plan_is_applied_where_a_run_was_stopped(
    stopped: Path, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """It decides nothing, and so differs in nothing."""
    run(tmp_path / "other", model_folder, text_file, SparseGPT(sparsity=0.3))
    run(stopped, model_folder, text_file, SparseGPT(plan=tmp_path / "other" / "plan"))
    same(stopped, tmp_path / "other")


def test_pruning_that_was_stopped_goes_on(
    stopped: Path, tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """In the same folder, with what it had finished."""
    run(tmp_path / "stopped", model_folder, text_file, Stopped(sparsity=0.5))
    assert Stopped.done == [0, 1, 2]
    run(tmp_path / "whole", model_folder, text_file, Stopped(sparsity=0.5))
    same(tmp_path / "stopped", tmp_path / "whole")
    assert not (tmp_path / "stopped" / "plan-unfinished").exists()


def test_finished_blocks_that_a_killed_run_left_beside_its_plan_are_removed(
    stopped: Path, model_folder: Path, text_file: Path
) -> None:
    """They are of no use any more."""
    left = stopped / "plan-unfinished"
    shutil.copytree(left, stopped / "kept")
    run(stopped, model_folder, text_file, Stopped(sparsity=0.5))
    (stopped / "kept").rename(left)
    run(stopped, model_folder, text_file, Stopped(sparsity=0.5))
    assert Stopped.done == [0, 1, 2]
    assert not left.exists()
