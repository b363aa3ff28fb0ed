"""Runs with a teacher: it stays outside, and two processes train as one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_prune
from lightning_prune import CausalLM, Distillation, GQATaylor, TextData
from lightning_prune.models import merged_model
from tests.lightning.runs import Losses, checkpoints, make_data, make_trainer
from tests.models.test_causal_lm import QUIET
from tests.processes import Pair
from tests.tiny import tiny_model

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")]


def run(
    root: Path, model: Path, text: Path, *callbacks: Callback, steps: int = 6, **settings
) -> tuple[Trainer, CausalLM, Losses]:
    torch.manual_seed(0)
    resumed = {"ckpt_path": settings.pop("ckpt_path")} if "ckpt_path" in settings else {}
    distillation = settings.pop("distillation", Distillation(hidden=0.1, chunk=50))
    module, losses = CausalLM(str(model), distillation=distillation, **settings), Losses()
    callbacks = (GQATaylor(ratio=0.25), losses, *callbacks)
    trainer = make_trainer(root, *callbacks, steps=steps, limit_val_batches=1)
    trainer.fit(module, make_data(text), **resumed)
    return trainer, module, losses


def test_the_teacher_is_in_no_checkpoint_and_no_optimizer(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Everything that is saved and trained is the student's; in the end the teacher is let go."""
    seen: list[tuple[int, int]] = []

    class Count(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: CausalLM) -> None:
            groups = trainer.optimizers[0].param_groups
            trained = sum(p.numel() for group in groups for p in group["params"])
            seen.append((trained, sum(p.numel() for p in pl_module.base.parameters())))
            assert not any(pl_module._distiller.teacher is m for m in pl_module.modules())

    trainer, module, _ = run(tmp_path, model_folder, text_file, Count(), checkpoints(tmp_path))
    (trained, ours) = seen[0]
    assert (
        trained == ours < sum(p.numel() for p in tiny_model("llama", vocab_size=300).parameters())
    )
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == module.state_dict().keys()
    assert module._distiller is None
    assert trainer.callback_metrics.keys() >= {
        *("train_loss", "train_cross_entropy", "train_kl", "train_hidden"),
    }


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    tmp_path: Path, model_folder: Path, text_file: Path, adapter: str | None
) -> None:
    """Bit for bit: the dense model is loaded from its path again."""
    settings = {"adapter": adapter, "learning_rate": 1e-2}
    _, whole, losses = run(tmp_path / "whole", model_folder, text_file, **settings)
    cut, keep = tmp_path / "cut", ModelCheckpoint(tmp_path, "half", every_n_train_steps=3)
    run(cut, model_folder, text_file, keep, steps=3, **settings)
    settings["ckpt_path"] = str(tmp_path / "half.ckpt")
    _, resumed, rest = run(cut, model_folder, text_file, **settings)
    assert list(rest.values) == [4, 5, 6]
    assert {step: losses.values[step] for step in rest.values} == rest.values
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


# --- two processes ---


def distil(root: Path, model: Path, text: Path, batch_size: int, **settings) -> dict[int, float]:
    """Losses of three steps, as the mean over all processes; the merged model goes to `root`."""
    torch.manual_seed(0)
    module, losses = CausalLM(str(model), distillation=Distillation(hidden=0.1, chunk=50)), Losses()
    method = GQATaylor(ratio=0.25)
    trainer = make_trainer(root, method, losses, steps=3, limit_val_batches=0, **settings)
    trainer.fit(module, TextData(str(text), nsamples=8, length=32, batch_size=batch_size))
    merged = merged_model(module)
    if merged is not None:
        merged.save_pretrained(root)
    reduced = (trainer.strategy.reduce(torch.tensor(loss)) for loss in losses.values.values())
    return dict(zip(losses.values, map(float, reduced), strict=True))


def distil_in_two(root: Path, model: Path, text: Path, strategy: str) -> dict[int, float]:
    return distil(root, model, text, 2, strategy=strategy, devices=2)


@pytest.fixture(scope="module")
def distilled(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, text_file: Path
) -> tuple[dict[int, float], dict[str, torch.Tensor]]:
    """Losses and weights of one process."""
    root = tmp_path_factory.mktemp("distilled")
    losses = distil(root, model_folder, text_file, 4, devices=1)
    return losses, lightning_prune.load(root).state_dict()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_as_one_does(
    tmp_path: Path, model_folder: Path, text_file: Path, distilled, pair: Pair, strategy: str
) -> None:
    """With the same windows in each step: the same losses and weights; FSDP2 shards the teacher."""
    losses = pair.run(distil_in_two, tmp_path, model_folder, text_file, strategy).results
    assert losses[0] == losses[1]
    found = losses[0], lightning_prune.load(tmp_path).state_dict()
    torch.testing.assert_close(found, distilled, rtol=1e-3, atol=1e-4)
