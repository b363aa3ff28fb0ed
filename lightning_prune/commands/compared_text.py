"""The text that two saved models are compared on, in windows that are the same for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from lightning_prune.commands.quiet import quiet_loading
from lightning_prune.data import TextData
from lightning_prune.evaluation import perplexity
from lightning_prune.models import CausalLM

__all__ = ["ComparedText"]

Batches = list[dict[str, torch.Tensor]]


class ComparedText:
    """A text for two models.

    Args:
        folders: of the models.
        text: as `TextData` takes its source.
        split: of the text.
        length: tokens in a window; None: what both models can take, 2048 at most.
        batch_size: windows in a batch.
        how: further arguments of `TextData`.

    Attributes:
        settings: what the perplexities are of.
        more: what else has been found.

    Raises:
        FileNotFoundError: there is no such text.
        ValueError: the models have no tokenizer, or cut the text differently.
    """

    def __init__(
        self,
        folders: Sequence[str],
        text: str,
        split: Literal["test", "validation"],
        length: int | None,
        batch_size: int,
        **how: Any,
    ) -> None:
        self._models = [CausalLM(folder) for folder in folders]
        longest = min(model.max_position_embeddings for model in self._models)
        vocabulary = min(model.vocabulary for model in self._models)
        tokenizers = [model.tokenizer for model in self._models]
        cut: list[Batches] = []
        for tokenizer in tokenizers:
            if tokenizer is not None:
                data = TextData(text, length=length, batch_size=batch_size, **how)
                data.attach(tokenizer, longest, vocabulary)
                loader = data.test_dataloader if split == "test" else data.val_dataloader
                cut.append(list(loader()))
        if not cut:
            raise ValueError("neither folder has a tokenizer, and perplexity needs one")
        if len(cut) == 2 and not _same(*cut):
            raise ValueError(
                "the tokenizers of the two models cut this text differently, so that their "
                "perplexities cannot be compared. Leave --text out to compare sizes and structure."
            )
        self._batches = cut[0]
        self.more: dict[str, Any] = {}
        self.settings: dict[str, Any] = {
            "text": text,
            "split": split,
            "windows": sum(len(batch["input_ids"]) for batch in cut[0]),
            "length": data.length,
            "begin": data.begun_with(split),
        }
        if None in tokenizers:
            _check_vocabulary(self._models)
            without = "AB"[tokenizers.index(None)]
            self.settings["note"] = f"{without} has no tokenizer and was given the other's tokens"

    @quiet_loading()
    def measured(self, device: torch.device) -> list[float]:
        """The perplexity of each model, one after the other."""
        values = []
        for model in self._models:
            model.load()
            values.append(perplexity(model.base, self._batches, device))
            model.model = None  # room for the other one
        return values


def _same(a: Batches, b: Batches) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x["labels"], y["labels"]) for x, y in zip(a, b, strict=True)
    )


def _check_vocabulary(models: Sequence[CausalLM]) -> None:
    a, b = (model.source.config().vocab_size for model in models if model.source is not None)
    if a != b:
        raise ValueError(
            f"only one folder has a tokenizer, and the vocabularies differ ({a} and {b} tokens), "
            "so that perplexities cannot be compared. Leave --text out."
        )
