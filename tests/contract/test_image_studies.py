"""What the studies make of a model that reads images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule

from lightning_prune.callbacks.progressive import _fingerprint
from lightning_prune.studies.bench import Bench
from lightning_prune.studies.importance import measure_importance
from tests.contract.vit import IMAGES, batches
from tests.tiny import tiny_classifier, tiny_model

pytestmark = pytest.mark.usefixtures("images_known")


class Images(LightningDataModule):
    """Calibrates and validates with the same images."""

    def calibration_dataloader(self) -> list[Any]:
        return batches(3)

    val_dataloader = train_dataloader = calibration_dataloader


def module() -> Any:
    return SimpleNamespace(load=lambda: None, base=tiny_classifier(), path="images")


@pytest.mark.parametrize("measure", ["angular", "removal"])
def test_the_importance_of_blocks_is_measured(measure: Any) -> None:
    """Images are counted, and have no length."""
    found = measure_importance(module(), Images(), measure)
    assert sorted(found.values) == [0, 1, 2]
    assert found.settings["windows"] == sum(len(b["pixel_values"]) for b in batches(3))
    assert found.settings["length"] is None


def test_methods_are_compared_by_accuracy() -> None:
    """On any data module's images; a language model's on text alone."""
    bench = Bench(module(), Images())
    with torch.no_grad():
        logits = module().base(pixel_values=IMAGES["pixel_values"]).logits
    assert bench.dense() == float((logits.argmax(-1) == IMAGES["labels"]).double().mean())
    assert bench.settings()["measure"] == "accuracy"
    text: Any = SimpleNamespace(load=lambda: None, base=tiny_model("llama"), path="text")
    with pytest.raises(ValueError, match="by perplexity, and Images does not give what that is of"):
        Bench(text, Images())


def test_rounds_know_their_images_again() -> None:
    """By what is in them."""
    other: Any = Images()
    other.val_dataloader = lambda: batches(3)[:1]
    assert _fingerprint(Images(), "validation") == _fingerprint(Images(), "validation")
    assert _fingerprint(Images(), "validation") != _fingerprint(other, "validation")
