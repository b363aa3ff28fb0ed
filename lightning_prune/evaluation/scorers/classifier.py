"""Any classifier of texts of Hugging Face as a scorer.

Axes: B texts of a batch, L labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from lightning_prune.digests import digests
from lightning_prune.evaluation.scorers.base import Scorer

__all__ = ["TextClassifier"]


class TextClassifier(Scorer):
    """The probability that a classifier gives to one of its labels.

    Labels share the probability; or, where the model's config says that a text may have several,
    each has its own. Weights are read from safetensors, and no code that comes with a model is run.

    Args:
        model: a folder, or a name on the hub.
        label: the one that counts; None: the only one.
        device: where to run it.
        batch_size: texts at once.

    Raises:
        ValueError: there is no such classifier, or it has no such label.
    """

    model: str
    label: str | None = None
    device: str = "cpu"
    batch_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("batch_size", self.batch_size > 0, "it is 1 or more")
        self._config = config = self._read(AutoConfig)
        regression = "it is a regression, whose values are no probabilities; take a classifier"
        self.require("model", config.problem_type != "regression", regression)
        labels = list(config.id2label.values())
        known = len(labels) == 1 if self.label is None else self.label in labels
        self.require("label", known, f"{self.model!r} has {', '.join(map(repr, labels))}")
        self._place = 0 if self.label is None else labels.index(self.label)

    @property
    def misses(self) -> str:
        """What its training text does not tell."""
        longest = f"what stands behind the first {self._longest} tokens of a text, and "
        return f"{longest}what its training text does not tell; its card says what that was"

    @torch.no_grad()
    def values(self, texts: Sequence[str]) -> Iterable[float]:
        """The probability of each."""
        tokenizer, alone = self._tokenizer, len(self._config.id2label) == 1
        several = alone or self._config.problem_type == "multi_label_classification"
        size = self.batch_size if tokenizer.pad_token_id is not None else 1
        scores: list[float] = []
        for start in range(0, len(texts), size):
            inputs = tokenizer(
                list(texts[start : start + size]),
                padding=size > 1,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
            )
            logits_BL = self._classifier(**inputs.to(self.device)).logits.float()
            share_BL = logits_BL.sigmoid() if several else logits_BL.softmax(dim=-1)
            scores += share_BL[:, self._place].tolist()
        return scores

    def facts(self) -> dict[str, Any]:
        """The model's commit on the hub, where it comes from there, and a hash of its weights."""
        digest = hashlib.sha256()
        for name, value in zip(
            self._classifier.state_dict(),
            digests(self._classifier.state_dict().values()),
            strict=True,
        ):
            digest.update(f"{name} {value} ".encode())
        commit = getattr(self._config, "_commit_hash", None)
        return {"version": commit, "sha256": digest.hexdigest()}

    @cached_property
    def _tokenizer(self) -> Any:
        return self._read(AutoTokenizer)

    @cached_property
    def _classifier(self) -> Any:
        model = self._read(AutoModelForSequenceClassification, use_safetensors=True)
        return model.to(self.device).eval()

    @property
    def _longest(self) -> int:
        # Some families count positions from behind the padding token.
        return min(self._tokenizer.model_max_length, self._config.max_position_embeddings - 2)

    def _read(self, kind: Any, **how: Any) -> Any:
        try:
            return kind.from_pretrained(self.model, **how)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            message = f"TextClassifier: model={self.model!r} cannot be read: {reason}"
            raise ValueError(message) from error
