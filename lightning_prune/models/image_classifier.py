"""Image classifiers: their loss, and how often they are right.

Axes: B images of a batch, C classes that the head tells apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from transformers import AutoModelForImageClassification, PreTrainedModel

from lightning_prune.anatomy import family_of
from lightning_prune.checkpoints.config import pixels_size
from lightning_prune.data.images.preparation import Preparation
from lightning_prune.evaluation.accuracy import hits
from lightning_prune.models.module import PrunableModule
from lightning_prune.models.recovery.student import Batch
from lightning_prune.tokens import IGNORED

__all__ = ["ImageClassifier"]


class ImageClassifier(PrunableModule):
    """An image classifier that is trained to name the class, and judged by how often it is right.

    Batches are dicts with `pixel_values` (B, channels, height, width) and `labels` (B,). Logged are
    the shares of images whose class comes first (`accuracy`), and among the first five (`top5`; of
    a head with fewer than six classes there is none), and the mean cross entropy (`loss`).

    Args:
        label_smoothing: share of the probability that all classes have in common in the loss that
            is trained on; the loss that is measured is without it.
        args: those of `PrunableModule`.
        kwargs: those of `PrunableModule`.

    Raises:
        ValueError: label_smoothing is not in [0, 1), or as of `PrunableModule`.
    """

    auto_class = AutoModelForImageClassification
    logged = ("val_accuracy", "val_top5", "val_loss", "train_loss")
    metrics: MetricCollection

    def __init__(self, *args: Any, label_smoothing: float = 0.0, **kwargs: Any) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}; 0 or more, and less than 1")
        super().__init__(*args, **kwargs)
        self.label_smoothing = label_smoothing

    @cached_property
    def processor(self) -> Any:
        """The model's image processor; a plain one for a model without, from its image size."""
        return self.origin.image_processor()

    @cached_property
    def preparation(self) -> Preparation:
        """What the model asks of its images; known before it is loaded.

        Raises:
            ValueError: no table describes this model type.
        """
        config = self.origin.config()
        family_of(config.model_type)
        known = {str(name): int(number) for number, name in (config.id2label or {}).items()}
        return Preparation(self.processor, config.num_channels, known, int(config.num_labels or 0))

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """The pixels.

        Raises:
            ValueError: the batch is no dict with `pixel_values`.
        """
        if not isinstance(batch, Mapping) or "pixel_values" not in batch:
            raise ValueError(
                f"{type(self).__name__} takes batches that are dicts with pixel_values (B, "
                "channels, height, width) and labels (B,); the data loader gives "
                f"{type(batch).__name__}."
            )
        return {"pixel_values": batch["pixel_values"]}

    def head(self, model: PreTrainedModel) -> nn.Linear | None:
        """The classifier."""
        return family_of(model.config.model_type).task.head(model)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross entropy of the images' classes, with label smoothing."""
        smoothing = self.label_smoothing
        return F.cross_entropy(self(batch), batch["labels"], label_smoothing=smoothing)

    def new_metrics(self) -> MetricCollection:
        """Means over images."""
        return MetricCollection({n: MeanMetric() for n in ("loss", "accuracy", "top5")})

    def measure(self, batch: Batch) -> None:
        """Add a batch to the means."""
        label_B = batch["labels"]
        asked = label_B != IGNORED
        logits_BC, label_B = self(batch)[asked].float(), label_B[asked]
        loss_B = F.cross_entropy(logits_BC, label_B, reduction="none")
        self.metrics["loss"].update(loss_B)
        for name, hit_B in hits(logits_BC, label_B).items():
            self.metrics[name].update(hit_B.float())

    def measured(self) -> dict[str, torch.Tensor]:
        """`loss`, `accuracy` and `top5`, over all images."""
        means = dict(self.metrics.compute())
        if (self.base.config.num_labels or 0) <= 5:
            del means["top5"]
        return means

    def random_images(self, count: int, seed: int = 0) -> torch.Tensor:
        """Random pixels of the size that the model reads, (B, channels, height, width)."""
        config = self.base.config
        generator = torch.Generator().manual_seed(seed)
        shape = (count, config.num_channels, *pixels_size(self.processor, config))
        return torch.randn(shape, generator=generator).to(self.base.dtype)

    def predict_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The class of each image, (B,)."""
        return self(batch).argmax(dim=-1)
