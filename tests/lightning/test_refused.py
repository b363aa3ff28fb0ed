"""A run that is refused leaves the folder as it was; one that diverges saves nothing."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prune import (
    CausalLM,
    DropBlocks,
    GQATaylor,
    LoRA,
    Plan,
    SavePretrained,
    Wanda,
    WriteReport,
)
from tests.lightning.runs import Losses, checkpoints, make_data, make_trainer


def contents(folder: Path) -> dict[str, str]:
    """A hash of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(root: Path, model: Path, text: Path, *methods: Any, **settings: Any) -> CausalLM:
    """Train for a few steps, with everything that a run leaves behind."""
    steps, path = settings.pop("steps", 2), settings.pop("ckpt_path", None)
    module = CausalLM(str(model), **({"learning_rate": 1e-2} | settings))
    observers = [SavePretrained(), WriteReport(speed=False, prompt=0), checkpoints(root)]
    make_trainer(root, *methods, *observers, steps=steps).fit(
        module, make_data(text), ckpt_path=path
    )
    return module


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([GQATaylor(ratio=0.4)], r"ratio=0.4 is asked for in place of 0.25"),
        ([GQATaylor(ratio=0.25, mlp=False)], r"mlp=False is asked for in place of True"),
        ([Wanda(sparsity=0.5)], r"the method is another one"),
    ],
    ids=["ratio", "mlp", "method"],
)
def test_a_refused_resume_changes_nothing(
    tmp_path: Path, model_folder: Path, text_file: Path, others: list[Any], said: str
) -> None:
    """Plan, models, report and checkpoints of the run are those of before."""
    run(tmp_path, model_folder, text_file, GQATaylor(ratio=0.25))
    before = contents(tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=f"the checkpoint was made with .*{said}"):
        run(tmp_path, model_folder, text_file, *others, ckpt_path=str(last), steps=4)
    assert contents(tmp_path) == before


def test_a_resume_that_keeps_scores_decides_the_same_again(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """The saved plan has none, so that it is made again; nothing that was asked for has changed."""
    run(tmp_path, model_folder, text_file, GQATaylor(ratio=0.25))
    last, method = (
        str(tmp_path / "checkpoints" / "last.ckpt"),
        GQATaylor(ratio=0.25, keep_scores=True),
    )
    run(tmp_path, model_folder, text_file, method, ckpt_path=last, steps=4)
    assert Plan.load(tmp_path / "plan").has_scores


def test_another_adapter_changes_nothing(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """It is noticed when the checkpoint is read, and nothing is written before."""
    run(tmp_path, model_folder, text_file, GQATaylor(ratio=0.25), adapter=LoRA(r=4))
    before = contents(tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match="the checkpoint does not fit the model"):
        run(
            tmp_path, model_folder, text_file, GQATaylor(ratio=0.25), adapter=LoRA(r=8),
            ckpt_path=str(last), steps=4,
        )  # fmt: skip
    assert contents(tmp_path) == before


def test_of_two_methods_the_second_is_checked_too(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Each by its own plan."""
    run(tmp_path, model_folder, text_file, DropBlocks(indices=[0]), Wanda(sparsity=0.5))
    before, last = contents(tmp_path), str(tmp_path / "checkpoints" / "last.ckpt")
    others = (DropBlocks(indices=[0]), Wanda(sparsity=0.6))
    with pytest.raises(ValueError, match=r"sparsity=0.6 is asked for in place of 0.5"):
        run(tmp_path, model_folder, text_file, *others, ckpt_path=last)
    assert contents(tmp_path) == before
    methods = (DropBlocks(indices=[0]), Wanda(sparsity=0.5))
    assert len(run(tmp_path, model_folder, text_file, *methods, ckpt_path=last).plans) == 2


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_run_elsewhere_goes_on_if_it_decides_the_same(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Without the run's plan, the method decides first; and nothing is left if it decides else."""
    run(tmp_path / "first", model_folder, text_file, GQATaylor(ratio=0.25))
    last = str(tmp_path / "first" / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"the checkpoint was made with the pruning plan"):
        run(tmp_path / "other", model_folder, text_file, GQATaylor(ratio=0.5), ckpt_path=last)
    assert not contents(tmp_path / "other")
    run(tmp_path / "same", model_folder, text_file, GQATaylor(ratio=0.25), ckpt_path=last, steps=4)
    assert (tmp_path / "same" / "pruned" / "model.safetensors").is_file()


def test_the_former_plan_is_kept(tmp_path: Path, model_folder: Path, text_file: Path) -> None:
    """Of a new run in the same folder, beside its own."""
    run(tmp_path, model_folder, text_file, GQATaylor(ratio=0.25))
    former = Plan.load(tmp_path / "plan").fingerprint()
    run(tmp_path, model_folder, text_file, GQATaylor(ratio=0.5))
    assert Plan.load(tmp_path / "plan-before").fingerprint() == former
    assert Plan.load(tmp_path / "plan").fingerprint() != former


def test_what_is_no_checkpoint_is_refused_before_pruning(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """A path that is mistyped, or of another file."""
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint '.*lost.ckpt'"):
        run(tmp_path, model_folder, text_file, Wanda(sparsity=0.5), ckpt_path="lost.ckpt")
    with pytest.raises(ValueError, match="is no Lightning checkpoint"):
        run(tmp_path, model_folder, text_file, Wanda(sparsity=0.5), ckpt_path=str(text_file))
    assert not (tmp_path / "plan").exists()


# --- what diverges ---


class Spoilt(Callback):
    """Puts NaN into a gradient, or into a weight when the last step is over."""

    def __init__(self, where: str) -> None:
        self.where = where

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.where == "gradient":
            self._weight(pl_module).grad.fill_(math.nan)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        if self.where == "weight":
            self._weight(pl_module).data.fill_(math.nan)

    def _weight(self, module: LightningModule) -> Any:
        return next(p for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize("adapter", [None, LoRA()], ids=["all weights", "lora"])
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("loss", r"training diverged at step 2: the loss, (nan|inf), is not finite"),
        ("gradient", "training diverged at step 1: a gradient is not finite"),
        ("weight", "training diverged: .* is not finite after the last step"),
    ],
)
def test_a_training_that_diverges_saves_nothing(
    tmp_path: Path, model_folder: Path, text_file: Path, where: str, said: str, adapter: Any
) -> None:
    """The first loss, gradient or weight that is not finite ends the run, with what to change."""
    rate, losses = (1e30, 3) if where == "loss" else (1e-3, 1)
    module = CausalLM(str(model_folder), adapter=adapter, learning_rate=rate)
    callbacks = [GQATaylor(ratio=0.25), SavePretrained(), Losses()]
    spoilt = [Spoilt(where)] if where != "loss" else []
    trainer = make_trainer(tmp_path, *callbacks, *spoilt, steps=losses)
    with pytest.raises(ValueError, match=f"{said}.* Lower learning_rate={re.escape(f'{rate:g}')}"):
        trainer.fit(module, make_data(text_file))
    assert (tmp_path / "pruned").is_dir()
    assert not (tmp_path / "recovered").exists()


def test_float16_is_told_to_be_bfloat16(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """All weights, updated in half precision."""
    module = CausalLM(str(model_folder), dtype="float16", learning_rate=10.0)
    trainer = make_trainer(tmp_path, GQATaylor(ratio=0.25), steps=4, precision="16-true")
    with pytest.raises(ValueError, match=r"training diverged.*take dtype=bfloat16"):
        trainer.fit(module, make_data(text_file))
    assert module.base.dtype == torch.float16
