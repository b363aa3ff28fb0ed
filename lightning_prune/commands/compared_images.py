"""The images that two saved classifiers are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from lightning_prune.commands.quiet import quiet_loading
from lightning_prune.data.image_data import ImageData
from lightning_prune.evaluation import classify
from lightning_prune.models.image_classifier import ImageClassifier

__all__ = ["ComparedImages"]


class ComparedImages:
    """Images for two models, each prepared as its own processor does.

    Args:
        folders: of the models.
        images: as `ImageData` takes its source.
        split: of the images.
        batch_size: images in a batch.
        classes: only images of these; None: all.

    Attributes:
        settings: what the accuracies are of.
        more: on how many images the models differ, when they have been measured.

    Raises:
        FileNotFoundError: there are no such images.
        ValueError: a model is no image classifier, or the images do not go with it.
    """

    def __init__(
        self,
        folders: Sequence[str],
        images: str,
        split: Literal["test", "validation"],
        batch_size: int,
        classes: Sequence[str] | None,
    ) -> None:
        self._models = [ImageClassifier(folder) for folder in folders]
        self._data: list[list[dict[str, torch.Tensor]]] = []
        for model in self._models:
            data = ImageData(images, classes=classes, batch_size=batch_size)
            data.attach(model.preparation)
            loader = data.test_dataloader if split == "test" else data.val_dataloader
            self._data.append(list(loader()))
        count = sum(len(batch["labels"]) for batch in self._data[0])
        measured = {"measure": "accuracy", "images": images, "split": split, "windows": count}
        self.settings: dict[str, Any] = measured
        self.more: dict[str, Any] = {}

    @quiet_loading()
    def measured(self, device: torch.device) -> list[float]:
        """The accuracy of each model, one after the other."""
        found = []
        for model, batches in zip(self._models, self._data, strict=True):
            model.load()
            found.append(classify(model.base, batches, device))
            model.model = None  # room for the other one
        self.more["differing"] = int((found[0].said_N != found[1].said_N).sum())
        return [one.accuracy for one in found]
