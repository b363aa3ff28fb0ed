"""Which of two ways of a product is faster here: found once, while both are used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Literal

__all__ = ["Trial", "Way"]

Way = Literal["dense", "columns"]

CALLS = 15


class Trial:
    """Two ways take turns until each has been timed so often; then the faster one is taken.

    They take turns at the calls of a whole model, so that weights come from memory, as they always
    will, and what else goes on disturbs both alike. Medians count.

    Attributes:
        speed: of the columns alone over that of the dense product; None: not known yet.
    """

    def __init__(self) -> None:
        self.speed: float | None = None
        self._seconds: dict[Way, list[float]] = {"dense": [], "columns": []}

    @property
    def way(self) -> Way:
        """That of the next call."""
        if self.speed is not None:
            return "columns" if self.speed > 1 else "dense"
        dense, columns = self._seconds.values()
        return "columns" if len(columns) < len(dense) else "dense"

    @contextmanager
    def timed(self, way: Way) -> Iterator[None]:
        """Around a call of the way, while it is not known which is faster."""
        start = time.perf_counter()
        yield
        self._seconds[way].append(time.perf_counter() - start)
        if all(len(seconds) >= CALLS for seconds in self._seconds.values()):
            dense, columns = map(median, self._seconds.values())
            self.speed = dense / columns
