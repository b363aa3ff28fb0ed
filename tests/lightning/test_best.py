"""The best weights of a run are merged, where a checkpoint keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_prune
from lightning_prune import CausalLM, SavePretrained, Wanda
from lightning_prune.models import merged_model
from tests.lightning.runs import make_data, make_trainer


class Overfit(Callback):
    """Spoils the trained weights after the second step, and remembers what was validated."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == 3:
            for parameter in pl_module.parameters():
                if parameter.requires_grad:
                    parameter.data.add_(torch.randn_like(parameter))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.seen[trainer.global_step] = float(trainer.callback_metrics["val_perplexity"])


def fit(root: Path, model: Path, text: Path, adapter: Any, monitor: str | None) -> Any:
    torch.manual_seed(0)
    module, spoil = CausalLM(str(model), adapter=adapter, learning_rate=1e-2), Overfit()
    keep = ModelCheckpoint(root / "best", monitor=monitor, save_on_train_epoch_end=False)
    trainer = make_trainer(
        root, Wanda(sparsity=0.5), spoil, keep, SavePretrained(), steps=4, val_check_interval=1
    )
    trainer.fit(module, make_data(text))
    return trainer, module, spoil.seen, keep


@pytest.mark.parametrize("adapter", [None, "lora", "qlora"])
def test_the_best_weights_by_the_monitored_value_are_saved(
    tmp_path: Path, model_folder: Path, text_file: Path, adapter: Any
) -> None:
    """Perplexity of the folder is the best that was seen, not the last; and masked as planned."""
    trainer, module, seen, keep = fit(tmp_path, model_folder, text_file, adapter, "val_perplexity")
    best = min(seen, key=seen.__getitem__)
    assert best < 3 < len(seen)
    again = CausalLM(str(tmp_path / "recovered"))
    (result,) = trainer.validate(again, make_data(text_file), verbose=False)
    assert result["val_perplexity"] == pytest.approx(seen[best], rel=1e-4)
    saved = torch.load(keep.best_model_path, weights_only=True)
    assert saved["global_step"] == best


def test_without_a_monitored_value_the_last_weights_are_saved(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """As they are in the module when the training ends."""
    trainer, module, seen, _ = fit(tmp_path, model_folder, text_file, "lora", None)
    expected = merged_model(module)
    assert expected is not None
    found = lightning_prune.load(tmp_path / "recovered").state_dict()
    torch.testing.assert_close(found, expected.state_dict(), rtol=0, atol=0)


def test_a_best_checkpoint_that_is_gone_is_said(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """Somebody may tidy up; the run still ends with a model."""

    class Tidy(Callback):
        def on_train_end(self, trainer: Any, *_: Any) -> None:
            Path(trainer.checkpoint_callback.best_model_path).unlink()

    module = CausalLM(str(model_folder), adapter="lora")
    keep = ModelCheckpoint(tmp_path / "best", monitor="train_loss", every_n_train_steps=1)
    trainer = make_trainer(tmp_path, keep, Tidy(), SavePretrained(), steps=2)
    trainer.callbacks.append(trainer.callbacks.pop(trainer.callbacks.index(keep)))
    with pytest.warns(UserWarning, match="by train_loss, .* not there any more"):
        trainer.fit(module, make_data(text_file))
    assert (tmp_path / "model" / "config.json").is_file()
