"""Runs whose model stays in its files, and runs that are stopped while they prune."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import seed_everything

from lightning_prune import CausalLM, GQATaylor, LoRA, SavePretrained, SparseGPT
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


def test_pruning_that_was_stopped_goes_on(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """In the same folder, with what it had finished; another method is refused there."""
    done: list[int] = []

    class Stopped(SparseGPT):
        def prune_block(self, block: Any, *args: Any) -> tuple[Decision, Any]:
            if block.index == 2 and stops:
                raise RuntimeError("power cut")
            done.append(block.index)
            return super().prune_block(block, *args)

    stops = True
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "stopped", model_folder, text_file, Stopped(sparsity=0.5))
    assert (tmp_path / "stopped" / "plan-unfinished").is_dir()
    with pytest.raises(ValueError, match=r"differs in arguments .*delete this one"):
        run(tmp_path / "stopped", model_folder, text_file, Stopped(sparsity=0.4))
    stops = False
    run(tmp_path / "stopped", model_folder, text_file, Stopped(sparsity=0.5))
    assert done == [0, 1, 2]
    run(tmp_path / "whole", model_folder, text_file, Stopped(sparsity=0.5))
    same(tmp_path / "stopped", tmp_path / "whole")
    assert not (tmp_path / "stopped" / "plan-unfinished").exists()
