"""Toxicity, by the classifiers of Unitary's Detoxify."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib import metadata
from typing import Any, Literal

from lightning_prune.evaluation.scorers.base import Scorer, check_installed

__all__ = ["Detoxify"]


class Detoxify(Scorer):
    """The probability that a text is toxic, as one of the classifiers of Detoxify has it.

    The package is optional, and fetches its classifiers when it first uses them.

    Source: https://github.com/unitaryai/detoxify

    Args:
        model: which classifier.
        label: which of its probabilities, such as "toxicity", "threat" or "insult".
        device: where to run it.
        batch_size: texts at once.
    """

    model: Literal["original", "unbiased", "multilingual"] = "original"
    label: str = "toxicity"
    device: str = "cpu"
    batch_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("batch_size", self.batch_size > 0, "it is 1 or more")
        check_installed("detoxify", type(self).__name__, "pip install detoxify")

    @property
    def misses(self) -> str:
        """What its training text does not tell."""
        return (
            "irony and what takes context to understand; it counts bad words and names of groups "
            "as toxic where they are meant well"
        )

    def values(self, texts: Sequence[str]) -> Iterable[float]:
        """The probability of each.

        Raises:
            ValueError: the classifier has no such label.
        """
        for start in range(0, len(texts), self.batch_size):
            found = self._classifier.predict(list(texts[start : start + self.batch_size]))
            self.require("label", self.label in found, f"it is one of {', '.join(found)}")
            yield from found[self.label]

    def facts(self) -> dict[str, Any]:
        """The version."""
        return {"package": "detoxify", "version": metadata.version("detoxify")}

    @cached_property
    def _classifier(self) -> Any:
        from detoxify import Detoxify as Classifier

        return Classifier(self.model, device=self.device)
