"""What goes into a model, what of it counts, and what its head is to say: the family's business.

Sweeps and evidence know hidden states (B, T, D) and which of their rows count, nothing else.

Axes: B sequences or images of a batch, T tokens (rows of the hidden states), C some of their
columns, K classes that the head tells apart (the vocabulary, of a language model), N places at
which it is asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import nn

from lightning_prune.tokens import (
    IGNORED,
    checked_batch,
    counted_tokens,
    labels_of,
    next_tokens,
    within_vocabulary,
)

__all__ = ["CausalTask", "ImageTask", "Labels", "Task"]

Batch = Mapping[str, torch.Tensor]
Labels = Literal["all", "reference"]

LOGITS = 2**24
"""How many logits are held at once where only losses are asked for: 64 MiB in fp32.

A pass back holds several of that size. On a CPU more at once is no faster.
"""
_ON_DEVICE = 4  # times as many, where starting the work would take longer than the work


def logits_at_once(on_cpu: bool) -> int:
    """How many logits are held at once where only losses are asked for."""
    return LOGITS if on_cpu else _ON_DEVICE * LOGITS


class Task(ABC):
    """What a family of models is for.

    Attributes:
        inputs: names of the tensors of a batch that the model's forward takes.
        arguments: further arguments of every forward.
        auto_class: name of the transformers class that loads such a model.
        windows_of: name of the tensor of a batch whose first axis counts its members.
        judged_by: what models of this kind are compared by.
        unit: what a batch is so many of, as in "tokens a second".
        rows: what the rows of its hidden states are.
        more: what to give where these are few.
    """

    inputs: tuple[str, ...]
    arguments: Mapping[str, Any] = {}
    auto_class: str
    judged_by: Literal["perplexity", "accuracy"] = "perplexity"
    unit: str = "tokens"
    rows: str = "tokens"
    more: str = "more nsamples, or a higher length"

    @property
    def windows_of(self) -> str:
        """Name of the tensor of a batch whose first axis counts its members."""
        return self.inputs[0]

    @property
    def form(self) -> str:
        """What a batch is, as messages call it."""
        return f"dicts with {self.windows_of}"

    @abstractmethod
    def checked(self, batch: Any, model: nn.Module) -> dict[str, torch.Tensor]:
        """A batch as a dict.

        Raises:
            ValueError: it is none that this model can read.
        """

    def amount(self, batch: Batch) -> int:
        """How many of its `unit` a batch has."""
        return batch[self.windows_of].numel()

    def called_with(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What of a batch the model's forward takes, beside `arguments`."""
        return {name: batch[name] for name in self.inputs if name in batch}

    def counts(self, batch: Batch) -> torch.Tensor | None:
        """Which rows of the hidden states count in statistics, (B, T) bool; None: all of them."""
        return None

    @abstractmethod
    def head(self, model: nn.Module) -> nn.Linear | None:
        """The output layer; None: the model has none that says what this task asks for."""

    @abstractmethod
    def targets(self, batch: Batch, labels: Labels = "all") -> torch.Tensor:
        """What the logits are to say: class indices, or `IGNORED`.

        Args:
            batch: as `checked` gave it.
            labels: "all" that a model of this kind is trained to say, or what a "reference" code
                asks for in its place; see `TaskLoss`.

        Raises:
            ValueError: the batch has no labels, or there is no reference for this task.
        """

    def answered(self, batch: Batch, last: bool) -> torch.Tensor:
        """The places at which the model answers: any number but `IGNORED`.

        Args:
            batch: as `checked` gave it.
            last: of each sequence the last place; else all that something is asked of.
        """
        return self.targets(batch, "reference" if last else "all")

    def answers(self, logits: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits of N places, (N, K), and what each is to say, (N,), as `targets` does."""
        return logits.flatten(0, -2), self.targets(batch).flatten()

    def parts(
        self, target: torch.Tensor, classes: int, logits: int
    ) -> Iterator[tuple[torch.Tensor | None, torch.Tensor]]:
        """Parts of the targets whose logits may be held at once.

        Args:
            target: as `targets` gives them.
            classes: K.
            logits: how many these may be.

        Yields:
            The columns of the hidden states that the head needs for them (C,), or None if it needs
            all of them together, and their targets.
        """
        yield None, target

    def selected(self, inputs: Batch, columns_C: torch.Tensor) -> dict[str, torch.Tensor]:
        """Inputs for a forward in which the head sees these columns alone."""
        raise NotImplementedError(f"the head of {type(self).__name__} sees all columns together")


class CausalTask(Task):
    """Language models that predict every next token from those before it."""

    inputs = ("input_ids", "attention_mask", "position_ids")
    arguments = {"use_cache": False}
    auto_class = "AutoModelForCausalLM"
    form = "dicts with input_ids (B, T)"

    def checked(self, batch: Any, model: nn.Module) -> dict[str, torch.Tensor]:
        """A dict with `input_ids` (B, T), and optional `attention_mask` (1 = token) and `labels`.

        All tokens have embeddings; a padding token that has none is replaced by another.
        """
        embeddings = model.get_input_embeddings()  # type: ignore[operator]
        return within_vocabulary(checked_batch(batch), embeddings.num_embeddings)

    def counts(self, batch: Batch) -> torch.Tensor | None:
        """Tokens that are neither padding nor ignored by the labels."""
        keep_BT = counted_tokens(batch)
        return None if bool(keep_BT.all()) else keep_BT

    def head(self, model: nn.Module) -> nn.Linear | None:
        """lm_head; a classifier of texts has none."""
        return model.get_output_embeddings()  # type: ignore[operator]

    def targets(self, batch: Batch, labels: Labels = "all") -> torch.Tensor:
        """(B, T): the next token; for "reference", the last token of each sequence at its place."""
        if labels == "all":
            return next_tokens(batch)
        keep_BT = counted_tokens(batch)
        behind_BT = keep_BT.flip(1).cumsum(dim=1).flip(1)
        return batch["input_ids"].masked_fill(~keep_BT | (behind_BT != 1), IGNORED)

    def answers(self, logits: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Of all tokens but the last, whose next is not there."""
        return logits[:, :-1].flatten(0, 1), labels_of(batch)[:, 1:].flatten()

    def parts(
        self, target: torch.Tensor, classes: int, logits: int
    ) -> Iterator[tuple[torch.Tensor | None, torch.Tensor]]:
        """The columns that ask for something, as many at a time as `logits` allows."""
        at_once = max(1, logits // (len(target) * classes))
        targeted_C = (target != IGNORED).any(dim=0).nonzero().flatten()
        for columns_C in targeted_C.split(at_once) if len(targeted_C) else ():
            yield columns_C, target[:, columns_C]

    def selected(self, inputs: Batch, columns_C: torch.Tensor) -> dict[str, torch.Tensor]:
        """The token ids of these columns; norm and head see each token for itself."""
        ids_BT = inputs["input_ids"]
        return {"input_ids": ids_BT[:, columns_C.to(ids_BT.device)]}


class ImageTask(Task):
    """Image classifiers: one answer for all rows of an image.

    Args:
        head_path: path of the output layer in the model.
    """

    inputs = ("pixel_values",)
    auto_class = "AutoModelForImageClassification"
    judged_by = "accuracy"
    unit, rows, more = "images", "patches", "more nsamples"
    form = "dicts with pixel_values (B, channels, height, width)"

    def __init__(self, head_path: str = "classifier") -> None:
        self.head_path = head_path

    def checked(self, batch: Any, model: nn.Module) -> dict[str, torch.Tensor]:
        """A dict with `pixel_values` (B, channels, height, width), and `labels` (B,) for losses."""
        pixels = batch.get("pixel_values") if isinstance(batch, Mapping) else None
        if not isinstance(pixels, torch.Tensor) or pixels.ndim != 4 or pixels.numel() == 0:
            got = f"a {type(batch).__name__}" if pixels is None else f"{tuple(pixels.shape)}"
            raise ValueError(
                "a batch of images is a dict with pixel_values of shape (B, channels, height, "
                f"width), and labels (B,) where a loss is asked for; got {got}"
            )
        return dict(batch)

    def amount(self, batch: Batch) -> int:
        """Images."""
        return len(batch["pixel_values"])

    def head(self, model: nn.Module) -> nn.Linear:
        """The classifier."""
        return model.get_submodule(self.head_path)  # type: ignore[return-value]

    def targets(self, batch: Batch, labels: Labels = "all") -> torch.Tensor:
        """(B,): the class of each image."""
        if labels != "all" or "labels" not in batch:
            raise ValueError(
                "losses of images need labels (B,) in every batch, and labels='all'; got "
                f"labels={labels!r} and a batch with {sorted(batch)}"
            )
        return batch["labels"]

    def answered(self, batch: Batch, last: bool) -> torch.Tensor:
        """(B,): an image has one answer, whether its class is known or not."""
        return torch.zeros(len(batch["pixel_values"]), dtype=torch.long)
