"""What a task says of its model: how batches go in, the loss, and the metrics.

Axes: B elements of a batch, T tokens of a window or patches of an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_prune.models.finite import check_step, check_trained
from lightning_prune.models.loading import Source
from lightning_prune.models.recovery.student import Batch, Model, plain

__all__ = ["TaskModule"]


class TaskModule(LightningModule, ABC):
    """The steps of a training, a validation and a test, of one Hugging Face model.

    A subclass says what kind of model it is (`auto_class`), its `loss`, its metrics (`new_metrics`,
    `measure`, `measured`), and what is `logged`. Where a batch is more than keyword arguments of
    the model and `labels`, it says what of it is what (`inputs`); for a teacher, also what the head
    is and what it is to say (`head`, `targets`, `attended`).

    Attributes:
        auto_class: transformers' class that loads the model, such as AutoModelForCausalLM.
        logged: names of what is logged and can be monitored.
        model: the Hugging Face model, with the adapter around it while it is trained; None before
            it is loaded.
        metrics: what validation and test add their batches to.
    """

    auto_class: ClassVar[Any]
    logged: ClassVar[tuple[str, ...]] = ("train_loss",)

    def __init__(self) -> None:
        super().__init__()
        self.model: Model | None = None
        self.metrics = self.new_metrics()
        self._loss = torch.zeros(())

    # --- what a subclass says ---

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """The mean loss of a batch, which training lowers; a distillation puts its own in place."""

    @abstractmethod
    def new_metrics(self) -> Metric | MetricCollection:
        """Empty metrics; called once, when the module is made."""

    @abstractmethod
    def measure(self, batch: Batch) -> None:
        """Add a batch of validation or test data to `metrics`."""

    def measured(self) -> dict[str, torch.Tensor]:
        """What `metrics` come to over all batches of all processes, by name.

        They are logged with `val_` or `test_` in front. As it stands, for a MetricCollection.
        """
        return dict(self.metrics.compute())

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """What made tokens of the text, saved beside the model; None where it reads no text."""
        return None

    @cached_property
    def processor(self) -> Any:
        """What made pixels of images, saved beside the model; None where it reads none."""
        return None

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What of a batch the model is called with."""
        return {name: value for name, value in batch.items() if name != "labels"}

    def targets(self, batch: Batch) -> torch.Tensor:
        """What the head is to say of each row that it reads; -100 where nothing is asked."""
        return batch["labels"]

    def attended(self, batch: Batch) -> torch.Tensor | None:
        """Which rows of the hidden states mean something, (B, T) bool; None: all."""
        return None

    def head(self, model: PreTrainedModel) -> Any:
        """The layer that makes logits of the last hidden states; None: no name for it is known.

        A distillation reads what goes into it.

        Args:
            model: plain, of the kind that `auto_class` loads.
        """
        return model.get_output_embeddings()

    def check_teacher(self, name: str, source: Source) -> None:
        """Refuse a teacher whose head does not say what this model's says.

        Args:
            name: what a message calls it.
            source: where it comes from; its weights need not be read.

        Raises:
            ValueError: it has another number of classes.
        """
        assert self.model is not None, "call load() first"
        ours, theirs = plain(self.model).config.num_labels, source.config().num_labels
        if ours != theirs:
            raise ValueError(
                f"{name} tells {theirs} classes apart, and the model {ours}. Take a teacher of the "
                "same classes."
            )

    # --- steps ---

    def forward(self, batch: Batch) -> torch.Tensor:
        """What the head says of a batch, the logits."""
        assert self.model is not None, "call load() first"
        return self.model(**self.inputs(batch)).logits

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """`loss`, which is trained on, and whatever else is to be logged, as `train_…`."""
        return {"loss": self.loss(batch)}

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The loss of a batch; logged with its parts."""
        losses = self.losses(batch)
        for name, value in losses.items():
            self.log(f"train_{name}", value, prog_bar=name == "loss")
        self._loss = losses["loss"].detach()
        return losses["loss"]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """End a training that diverges, before weights and checkpoints are spoilt.

        Raises:
            ValueError: the loss, or a gradient, is not finite.
        """
        check_step(self, self._loss)

    def on_train_end(self) -> None:
        """Refuse what has diverged in the last step.

        Raises:
            ValueError: a weight that was trained is not finite.
        """
        if self.trainer.global_step:
            check_trained(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the metrics."""
        self.measure(batch)

    def on_validation_epoch_end(self) -> None:
        """Log what was measured, as `val_…`."""
        self._log_measured("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the metrics."""
        self.measure(batch)

    def on_test_epoch_end(self) -> None:
        """Log what was measured, as `test_…`."""
        self._log_measured("test")

    def _log_measured(self, prefix: str) -> None:
        values = self.measured()
        self.metrics.reset()
        for name, value in values.items():
            # The values are the same in all processes; sync_dist only tells Lightning so.
            self.log(f"{prefix}_{name}", value, prog_bar=name != "loss", sync_dist=True)
