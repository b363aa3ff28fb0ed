"""Modules that users write: pruned, trained, validated, saved and resumed like CausalLM."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import EarlyStopping
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_prune import CausalLM, Distillation, LoRA, Magnitude, Plan, SavePretrained, Wanda
from lightning_prune.models.module import PrunableModule
from lightning_prune.models.monitors import check_monitors
from lightning_prune.models.task import TaskModule
from lightning_prune.tokens import labels_of
from tests.lightning.runs import Losses, checkpoints, make_trainer
from tests.lightning.test_lifecycle import zeros_hold
from tests.models.test_causal_lm import CONFIG, QUIET
from tests.pages import run_page
from tests.tiny import tiny_batch

pytestmark = QUIET


class SmoothedLM(CausalLM):
    """A language model that is not to be too sure.

    Args:
        smoothing: share of the probability that all tokens have in common.
        settings: of `CausalLM`.
    """

    def __init__(self, *, smoothing: float = 0.1, **settings: Any) -> None:
        super().__init__(**settings)
        self.smoothing = smoothing

    def loss(self, batch: Any) -> torch.Tensor:
        logits, target = self(batch)[:, :-1].flatten(0, 1), labels_of(batch)[:, 1:].flatten()
        return F.cross_entropy(logits, target, label_smoothing=self.smoothing)


class Texts(LightningDataModule):
    """Random tokens, calibrated without labels; with `kinds`, each text is of one of three."""

    def __init__(self, kinds: bool) -> None:
        super().__init__()
        self.ids_NT = tiny_batch(8, 12)
        self.labels = self.ids_NT[:, 0] % 3 if kinds else self.ids_NT

    def calibration_dataloader(self) -> DataLoader[Any]:
        return DataLoader([{"input_ids": ids_T} for ids_T in self.ids_NT], batch_size=4)

    def train_dataloader(self) -> DataLoader[Any]:
        pairs = zip(self.ids_NT, self.labels, strict=True)
        batches = [{"input_ids": ids_T, "labels": label} for ids_T, label in pairs]
        return DataLoader(batches, batch_size=4)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return self.train_dataloader()


MODULES = {
    "own loss": SmoothedLM,
    "documented": run_page("docs/adding/module.md")["TextClassifier"],
}
MEASURES = {"own loss": "perplexity", "documented": "accuracy"}
METHODS = {"magnitude": lambda: Magnitude(sparsity=0.5), "wanda": lambda: Wanda(pattern="2:4")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with a dense model for each of the modules."""
    root = tmp_path_factory.mktemp("dense")
    for name, module in MODULES.items():
        torch.manual_seed(0)
        made = module(config=CONFIG | {"pad_token_id": 0, "num_labels": 3})
        made.load()
        made.base.save_pretrained(root / name)
    return {name: str(root / name) for name in MODULES}


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", MODULES)
def test_it_is_pruned_trained_validated_saved_and_resumed(
    tmp_path: Path, folders: dict[str, str], kind: str, method: str, adapter: str | None
) -> None:
    """Bit for bit as without a break; and the saved folder is what was validated."""
    data = Texts(kinds=kind == "documented")

    def fit(root: Path, steps: int, *callbacks: Any, **settings: Any) -> tuple[Any, Any, Losses]:
        torch.manual_seed(0)
        module = MODULES[kind](path=folders[kind], adapter=adapter, learning_rate=1e-2)
        losses = Losses()
        trainer = make_trainer(root, METHODS[method](), losses, *callbacks, steps=steps)
        trainer.fit(module, data, **settings)
        return trainer, module, losses

    stop = EarlyStopping(monitor=f"val_{MEASURES[kind]}", patience=9)
    _, whole, losses = fit(tmp_path / "whole", 4, stop)
    fit(tmp_path / "cut", 2, checkpoints(tmp_path / "cut"))
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    more = (SavePretrained(), checkpoints(tmp_path / "cut"))
    trainer, module, rest = fit(tmp_path / "cut", 4, *more, ckpt_path=str(last))
    assert rest.values == {step: losses.values[step] for step in (3, 4)}
    torch.testing.assert_close(module.state_dict(), whole.state_dict(), rtol=0, atol=0)

    (expected,) = trainer.validate(module, data, verbose=False)
    assert expected.keys() == {"val_loss", f"val_{MEASURES[kind]}"} <= {*module.logged}
    again = MODULES[kind](path=str(tmp_path / "cut" / "recovered"))
    (found,) = make_trainer(tmp_path).validate(again, data, verbose=False)
    assert found == pytest.approx(expected, rel=1e-5)
    assert zeros_hold(again.base, Plan.load(tmp_path / "cut" / "plan"))
    assert type(again.base) is type(module.base)


def test_its_loss_is_what_is_trained() -> None:
    """The classifier learns its eight texts; the language model's loss is the smoothed one."""
    classifier = MODULES["documented"](
        config=CONFIG | {"pad_token_id": 0, "num_labels": 3}, learning_rate=1e-2, adapter=LoRA(r=8)
    )
    trainer = make_trainer(Path("unused"), steps=60)
    trainer.fit(classifier, Texts(kinds=True))
    (result,) = trainer.validate(classifier, Texts(kinds=True), verbose=False)
    assert result["val_accuracy"] == 1

    batch = {"input_ids": tiny_batch()}
    for smoothing in (0.0, 0.5):
        torch.manual_seed(0)
        module = SmoothedLM(config=CONFIG, smoothing=smoothing)
        module.load()
        plain = CausalLM.loss(module, batch)
        assert torch.isclose(module.loss(batch), plain) == (not smoothing)


def test_a_name_that_it_does_not_log_cannot_be_monitored(tmp_path: Path) -> None:
    """What is logged is said by the class, and perplexity is no accuracy."""
    module = MODULES["documented"](config=CONFIG)
    trainer = make_trainer(tmp_path, EarlyStopping(monitor="val_perplexity"))
    with pytest.raises(ValueError, match="'val_perplexity'.*Logged are val_accuracy, val_loss, tr"):
        trainer.fit(module, Texts(kinds=True))


class Logging(CausalLM):
    """Logs more than its class says."""


def test_who_may_log_more_is_not_refused() -> None:
    """A module of the user that leaves unsaid what it logs; ours is held to what it says."""
    trainer = SimpleNamespace(callbacks=[EarlyStopping(monitor="accuracy")])
    check_monitors(trainer, Logging.logged, Logging("quickstart"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'accuracy', which nothing logs"):
        check_monitors(trainer, CausalLM.logged, CausalLM("quickstart"))  # type: ignore[arg-type]


class TaughtClassifier(MODULES["documented"]):  # type: ignore[name-defined, misc]
    """Says what its head is, and that it is asked at the last token of a text."""

    def head(self, model: Any) -> torch.nn.Module:
        return model.score

    def targets(self, batch: Any) -> torch.Tensor:
        label_BT = torch.full_like(batch["input_ids"], -100)
        label_BT[:, -1] = batch["labels"]
        return label_BT


def test_a_classifier_learns_from_a_teacher(folders: dict[str, str]) -> None:
    """The cross entropy is its own loss; from its own weights there is nothing to learn."""
    distillation = Distillation(folders["documented"], weight=0.5, hidden=1.0)
    module = TaughtClassifier(path=folders["documented"], distillation=distillation)
    module.load()
    batch = next(iter(Texts(kinds=True).train_dataloader()))
    losses = distillation.start(module).losses(batch)
    torch.testing.assert_close(losses["cross_entropy"], module.loss(batch))
    assert losses["kl"] < 1e-6
    assert losses["hidden"] == 0


def test_a_teacher_that_cannot_be_compared_is_refused(folders: dict[str, str]) -> None:
    """When the model is loaded: it knows other classes, or the module does not name the head."""
    settings = {
        "config": CONFIG | {"num_labels": 5},
        "distillation": Distillation(folders["documented"]),
    }
    with pytest.raises(ValueError, match="tells 3 classes apart, and the model 5"):
        TaughtClassifier(**settings).load()
    with pytest.raises(ValueError, match="TextClassifier does not know that of .* method `head`"):
        MODULES["documented"](**settings).load()


def test_a_module_without_a_loss_or_metrics_cannot_be_made() -> None:
    """With the names of what is missing."""
    with pytest.raises(TypeError, match="abstract.*loss.*measure.*new_metrics"):
        TaskModule()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="abstract.*loss.*measure.*new_metrics"):
        PrunableModule("quickstart")  # type: ignore[abstract]


def test_its_arguments_are_those_of_the_base_and_its_own() -> None:
    """In YAML and in `--help`, with what is said of each."""
    parser = ArgumentParser()
    parser.add_class_arguments(SmoothedLM, "model")
    shown = " ".join(parser.format_help().split())
    assert "share of the probability that all tokens have in common" in shown
    assert "branch, tag or commit of a hub model" in shown
    given = parser.parse_string("model: {path: quickstart, smoothing: 0.2, schedule: cosine}")
    module = parser.instantiate(given).model
    assert (module.path, module.smoothing, module.schedule) == ("quickstart", 0.2, "cosine")
