"""Types that arguments are annotated with: what is right is never refused."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pytest

from lightning_prune import BlockFit
from lightning_prune.checks import Configured


class HasShape(Protocol):
    """Of anything that has a shape; isinstance does not know it."""

    shape: tuple[int, ...]


class Theirs(Configured):
    """With annotations of all kinds."""

    shaped: HasShape | None = None
    pair: tuple[str, float] = ("a", 1.0)
    count: int = None  # type: ignore[assignment]
    quick: bool = False


def test_annotations_of_others_refuse_nothing_that_is_right() -> None:
    """Protocols, tuples of several types, a None that is the default, numbers of NumPy."""
    given = {"shaped": np.zeros(3), "pair": ("b", 2.0), "count": None, "quick": np.bool_(True)}
    made = Theirs(**given)
    assert made.pair == ("b", 2.0)
    assert BlockFit(steps=np.int64(8)).steps == 8
    with pytest.raises(ValueError, match="Theirs: quick='no' is not allowed"):
        Theirs(quick="no")
