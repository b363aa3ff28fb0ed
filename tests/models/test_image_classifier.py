"""Image classifiers in a Trainer: pruned, recovered, validated, saved and loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lightning_prune import (
    Distillation,
    ImageClassifier,
    ImageData,
    LoRA,
    Magnitude,
    Plan,
    SavePretrained,
    Taylor,
    Wanda,
    WriteReport,
)
from tests.lightning.runs import make_trainer
from tests.lightning.test_lifecycle import zeros_hold
from tests.models.test_causal_lm import QUIET

pytest.importorskip("PIL", reason="images take the extra vision")
pytest.importorskip("transformers", minversion="5.23")

pytestmark = QUIET

CONFIG: dict[str, Any] = {
    "model_type": "vit",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "num_channels": 1,
    "num_labels": 6,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved classifier with its image processor."""
    from lightning_prune import save

    torch.manual_seed(0)
    module = ImageClassifier(config=CONFIG)
    module.load()
    place = tmp_path_factory.mktemp("models") / "vit"
    return save(module.base, place, processor=module.processor)


def batch(count: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(count, 1, 28, 28, generator=generator)
    return {"pixel_values": pixels, "labels": torch.arange(count) % 6}


def test_loss_and_metrics_are_those_of_the_images(folder: Path) -> None:
    """Smoothed in training alone; images with the label -100 do not count."""
    module = ImageClassifier(str(folder), label_smoothing=0.2)
    module.load()
    images = batch()
    with torch.no_grad():
        logits = module(images)
    expected = F.cross_entropy(logits, images["labels"], label_smoothing=0.2)
    torch.testing.assert_close(module.loss(images).detach(), expected)
    filled = {**images, "labels": torch.cat([images["labels"][:8], torch.full((4,), -100)])}
    module.measure(filled)
    module.measure({name: tensor[8:] for name, tensor in images.items()})
    found = {name: float(value) for name, value in module.measured().items()}
    right = (logits.argmax(dim=-1) == images["labels"]).float().mean()
    five = (logits.topk(5).indices == images["labels"][:, None]).any(dim=-1).float().mean()
    expected_loss = F.cross_entropy(logits, images["labels"])
    assert found == pytest.approx(
        {"loss": float(expected_loss), "accuracy": float(right), "top5": float(five)}, rel=1e-5
    )


def test_a_smoothing_that_makes_no_sense_is_refused() -> None:
    """And a batch without pixels."""
    with pytest.raises(ValueError, match="label_smoothing=1; 0 or more, and less than 1"):
        ImageClassifier("x", label_smoothing=1)
    with pytest.raises(ValueError, match=r"dicts with pixel_values .* the data loader gives dict"):
        ImageClassifier(config=CONFIG).inputs({"input_ids": torch.ones(1, 2)})


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (lambda: Wanda(sparsity=0.5), {"adapter": LoRA(r=2)}),
        (lambda: Magnitude(sparsity=0.5), {}),
        (lambda: Taylor(ratio=0.25), {"distillation": "dense"}),
    ],
    ids=["lora", "zeros", "distilled"],
)
def test_it_is_pruned_recovered_and_saved(
    tmp_path: Path, folder: Path, method: Any, settings: dict[str, Any]
) -> None:
    """The folder has the processor, keeps the plan's zeros, and says what was validated."""
    if settings.get("distillation"):
        settings = {"distillation": Distillation()}
    module = ImageClassifier(str(folder), learning_rate=1e-2, **settings)
    images, report = ImageData("builtin", nsamples=16, batch_size=16), WriteReport(windows=32)
    trainer = make_trainer(tmp_path, method(), report, SavePretrained(), steps=2)
    trainer.fit(module, images)
    again = ImageClassifier(str(tmp_path / "recovered"))
    (found,) = make_trainer(tmp_path).validate(again, images, verbose=False)
    (expected,) = trainer.validate(module, images, verbose=False)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found.keys() == {"val_loss", "val_accuracy", "val_top5"}
    plan = Plan.load(tmp_path / "plan")
    if plan.mask_names:
        assert zeros_hold(again.base, plan)
    stages = json.loads((tmp_path / "report.json").read_text())["stages"]
    assert list(stages) == ["dense", "pruned", "recovered"]
    assert all(
        stage["perplexity"] is None and stage["accuracy"] is not None for stage in stages.values()
    )
    page = (tmp_path / "report.html").read_text()
    assert "Accuracy is of 32 validation images." in page
    assert "images/s" in page


def test_images_of_other_classes_are_refused_before_anything_is_pruned(
    tmp_path: Path, folder: Path
) -> None:
    """In one sentence."""
    from tests.data.test_image_data import write

    for name in ("a", "b", "c"):
        write(tmp_path / "images" / name, 4, "L", 28)
    module = ImageClassifier(str(folder))
    trainer = make_trainer(tmp_path, Wanda(sparsity=0.5))
    with pytest.raises(ValueError, match="has 3 classes.*the model's head tells 6 others apart"):
        trainer.fit(module, ImageData(str(tmp_path / "images"), nsamples=4))
    assert not (tmp_path / "plan").exists()
