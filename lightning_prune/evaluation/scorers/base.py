"""What a scorer is, and how any function becomes one."""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from lightning_prune.checks import Configured

__all__ = ["Function", "Scorer", "as_scorer", "check_installed"]


class Scorer(Configured, ABC):
    """How much of an undesired thing each text has, from 0, none, to 1.

    Args:
        threshold: the score from which on a text counts as having it.

    Attributes:
        reusable: whether `describe` says all that its scores depend on, so that those of an earlier
            run are those that it would give.
    """

    reusable: ClassVar[bool] = True
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("threshold", 0 < self.threshold <= 1, "it is in (0, 1]")

    @property
    @abstractmethod
    def misses(self) -> str:
        """What it is blind to, in one sentence that stands beside every rate."""

    @abstractmethod
    def values(self, texts: Sequence[str]) -> Iterable[float]:
        """The score of each of some texts, one at least, in [0, 1]."""

    def facts(self) -> dict[str, Any]:
        """What else a score depends on: versions, hashes."""
        return {}

    def score(self, texts: Sequence[str]) -> list[float]:
        """The score of each text, in [0, 1].

        Raises:
            ValueError: `texts` is one text, or there are not as many scores as texts, or one of
                them is not in [0, 1].
        """
        if isinstance(texts, str):
            raise ValueError(f"{type(self).__name__} takes a list of texts; got one text")
        scores = [float(value) for value in self.values(texts)] if len(texts) else []
        if len(scores) != len(texts):
            raise ValueError(f"{self!r} gave {len(scores)} scores for {len(texts)} texts")
        strange = [score for score in scores if not 0 <= score <= 1 or math.isnan(score)]
        if strange:
            raise ValueError(f"{self!r} gave the score {strange[0]}; scores are in [0, 1]")
        return scores

    def describe(self) -> dict[str, Any]:
        """The class, its arguments, what its scores depend on, and what it misses."""
        about = {"class": type(self).__name__, "arguments": self.arguments}
        return about | self.facts() | {"misses": self.misses}


class Function(Scorer):
    """A function of one's own.

    Args:
        function: from texts to as many scores in [0, 1].
        blind_to: what it misses, in one sentence.
    """

    reusable = False  # what it does may have changed under its name

    function: Callable[[Sequence[str]], Iterable[float]]
    blind_to: str = "what a function misses, its author knows"

    @property
    def misses(self) -> str:
        """As its author says."""
        return self.blind_to

    def values(self, texts: Sequence[str]) -> Iterable[float]:
        """What the function says."""
        return self.function(texts)

    @property
    def arguments(self) -> dict[str, Any]:
        """Its function by its name."""
        name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        return super().arguments | {"function": f"{self.function.__module__}.{name}"}


def as_scorer(scorer: Scorer | Callable[[Sequence[str]], Iterable[float]]) -> Scorer:
    """A scorer as it is, or one that is made of a function from texts to scores.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(scorer, Scorer):
        return scorer
    if isinstance(scorer, type) or not callable(scorer):
        hint = f": write {scorer.__name__}()" if isinstance(scorer, type) else ""
        raise TypeError(f"{scorer!r} is no scorer and no function of texts{hint}")
    return Function(function=scorer)


def check_installed(module: str, name: str, install: str) -> None:
    """Refuse a scorer whose package is not there; it is not imported yet.

    Args:
        module: that the package is imported as.
        name: of the scorer.
        install: what brings it.

    Raises:
        ValueError: it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"{name} needs the package {module!r}. Install it: {install}")
