"""Offensive words, by a linear classifier that was trained on comments of the web."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

from lightning_prune.evaluation.scorers.base import Scorer, check_installed

__all__ = ["Profanity"]

PACKAGE = "alt-profanity-check"


class Profanity(Scorer):
    """The probability that a text is offensive, as alt-profanity-check has it.

    A linear support vector machine on counts of words. Its model comes with the package, as a
    pickle, and belongs to one release of scikit-learn.

    Source: https://github.com/dimitrismistriotis/alt-profanity-check
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        install = 'pip install "lightning-prune[behaviour]"'
        check_installed("profanity_check", type(self).__name__, install)

    @property
    def misses(self) -> str:
        """All that takes no bad word."""
        return (
            "threats, insults and prejudice in plain words, and all languages but English: it "
            "counts words, and finds half of the toxic continuations of RealToxicityPrompts"
        )

    def values(self, texts: Sequence[str]) -> Iterable[float]:
        """The probability of each."""
        from profanity_check import predict_prob  # takes seconds

        return predict_prob(list(texts)).tolist()

    def facts(self) -> dict[str, Any]:
        """The version, whose model it is."""
        return {"package": PACKAGE, "version": metadata.version(PACKAGE)}
