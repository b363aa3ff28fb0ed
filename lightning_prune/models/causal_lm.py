"""Causal language models: their loss, and their perplexity.

Axes: B windows of a batch, T tokens of a window, S = T - 1 predictions of a window, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from lightning_prune.anatomy import family_of
from lightning_prune.evaluation.metrics import Perplexity, next_token_nll
from lightning_prune.models.loading import Source
from lightning_prune.models.module import PrunableModule
from lightning_prune.models.recovery.student import Batch
from lightning_prune.models.recovery.vocabulary import check_vocabulary
from lightning_prune.tokens import IGNORED, labels_of

__all__ = ["CausalLM"]


class CausalLM(PrunableModule):
    """A causal language model that is trained to predict the next token, and judged by perplexity.

    Batches are dicts with `input_ids` (B, T) and optional `attention_mask` and `labels`. Perplexity
    is taken over the windows as they come: each token is predicted from those before it in its
    window, so it depends on their length.

    The arguments are those of `PrunableModule`.
    """

    auto_class = AutoModelForCausalLM
    logged = ("val_perplexity", "val_loss", "train_loss")
    metrics: Perplexity

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The model's tokenizer; None where it has none. May be set, e.g. to one just trained."""
        return self.origin.tokenizer()

    @cached_property
    def max_position_embeddings(self) -> int:
        """The longest window that the model is made for; known before the model is loaded.

        Raises:
            ValueError: no table describes this model type.
        """
        config = self.origin.config()
        family_of(config.model_type)
        return config.max_position_embeddings

    @cached_property
    def vocabulary(self) -> int:
        """How many tokens the model has embeddings for; known before the model is loaded."""
        return self.origin.config().vocab_size

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Token ids and mask.

        Raises:
            ValueError: the batch is no dict with `input_ids`.
        """
        if not isinstance(batch, Mapping) or "input_ids" not in batch:
            raise ValueError(
                f"{type(self).__name__} takes batches that are dicts with input_ids (B, T), and "
                "attention_mask and labels if there are any; the data loader gives "
                f"{type(batch).__name__}."
            )
        mask_BT = batch.get("attention_mask")
        return {"input_ids": batch["input_ids"], "attention_mask": mask_BT, "use_cache": False}

    def targets(self, batch: Batch) -> torch.Tensor:
        """The next token at each place, (B, T); -100 where none is asked for, as at the last."""
        return F.pad(labels_of(batch)[:, 1:], (0, 1), value=IGNORED)

    def attended(self, batch: Batch) -> torch.Tensor | None:
        """Which tokens are no padding, (B, T) bool; None: all."""
        mask_BT = batch.get("attention_mask")
        return None if mask_BT is None else mask_BT != 0

    def check_teacher(self, name: str, source: Source) -> None:
        """Refuse a teacher of another vocabulary.

        Raises:
            ValueError: it has another number of tokens, or some that stand for something else.
        """
        configs = (self.base.config, source.config())
        check_vocabulary(name, *configs, self.tokenizer, source.tokenizer())

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean negative log likelihood of the batch's next tokens."""
        nll_BS, counted_BS = next_token_nll(self(batch), labels_of(batch))
        return nll_BS.sum() / counted_BS.sum().clamp(min=1)

    def new_metrics(self) -> Perplexity:
        """The perplexity."""
        return Perplexity()

    def measure(self, batch: Batch) -> None:
        """Add a batch to the perplexity."""
        self.metrics.update(self(batch), labels_of(batch))

    def measured(self) -> dict[str, torch.Tensor]:
        """`loss` and `perplexity`, over all tokens."""
        perplexity = self.metrics.compute()
        return {"loss": perplexity.log(), "perplexity": perplexity}

    def predict_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Mean negative log likelihood of each window's next tokens, (B,)."""
        nll_BS, counted_BS = next_token_nll(self(batch), labels_of(batch))
        return nll_BS.sum(dim=1) / counted_BS.sum(dim=1).clamp(min=1)
