"""What a training logs, over its steps."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

__all__ = ["Curves"]

POINTS = 1000
"""So many points of a curve are kept; every second goes when there are more."""


class Curves:
    """Values by name and step."""

    def __init__(self) -> None:
        self._values: dict[str, dict[int, float]] = {}

    def note(self, trainer: Trainer, *names: str) -> None:
        """Note what was logged last, in process 0; what was not logged is left out."""
        for name in names:
            if trainer.is_global_zero and name in trainer.callback_metrics:
                curve = self._values.setdefault(name, {})
                curve[trainer.global_step] = float(trainer.callback_metrics[name])
                if len(curve) > POINTS:
                    self._values[name] = dict(list(curve.items())[::2])

    @property
    def points(self) -> dict[str, list[tuple[int, float]]]:
        """Steps and values, by name."""
        return {name: list(curve.items()) for name, curve in self._values.items()}

    def go_on_from(self, points: dict[str, Any]) -> None:
        """Take the points of a checkpoint in place of these."""
        self._values = {name: dict(curve) for name, curve in points.items()}
