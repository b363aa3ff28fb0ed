"""Thresholds of inputs, by Linear, as a file: activation_thresholds.json in a model's folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_prune.checkpoints.names import THRESHOLDS
from lightning_prune.files import write_json

__all__ = ["ActivationThresholds"]


@dataclass(frozen=True)
class ActivationThresholds:
    """Inputs of Linears of |x| <= threshold count as zero.

    Attributes:
        thresholds: by the Linear's name in the model, as in "model.layers.0.mlp.down_proj".
        sparsity: share of each Linear's inputs that was to be at or below its threshold; None: not
            known.
        model: whose inputs were looked at.
        tokens: how many were.
    """

    thresholds: Mapping[str, float]
    sparsity: float | None = None
    model: str = ""
    tokens: int = 0

    def __post_init__(self) -> None:
        if not self.thresholds:
            raise ValueError("there are no thresholds; give one for a Linear at least")
        for name, value in self.thresholds.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"the threshold of {name} is {value!r}; it is a number")
            if not 0 <= value < math.inf:
                raise ValueError(f"the threshold of {name} is {value}; it is 0 or more, and finite")

    def save(self, path: str | Path) -> Path:
        """Write them to a file, or to `activation_thresholds.json` in a folder that is there."""
        file = _file(path)
        write_json(file, asdict(self))
        return file

    @classmethod
    def load(cls, path: str | Path) -> ActivationThresholds:
        """Read them from a file, or from `activation_thresholds.json` in a folder.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is no such file.
        """
        file = _file(path)
        if not file.is_file():
            raise FileNotFoundError(
                f"there are no activation thresholds in {file}; `lightning-prune analyze "
                "activations` finds them"
            )
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            known = {key: value[key] for key in cls.__dataclass_fields__ if key in value}
            return cls(**known)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{file} holds no activation thresholds ({error}); they are "
                '{"thresholds": {"model.layers.0.mlp.down_proj": 0.01, …}}'
            ) from error


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path / THRESHOLDS if path.is_dir() else path
