"""What a block's output loses when one of its Linears is changed.

Axes: O output features, I input features.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch

from lightning_prune.anatomy import Site
from lightning_prune.evidence.base import Evidence, InputEvidence

__all__ = ["Trial"]


class Trial(Evidence):
    """The squared relative change of a block's output with one Linear changed, by its name.

    Each Linear is changed alone, on the dense model.

    Args:
        windows: on the first so many members of the calibration set.
    """

    sweep = "trial"

    windows: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("windows", self.windows >= 1, "it is 1 or more calibration windows")

    @property
    @abstractmethod
    def inputs(self) -> InputEvidence:
        """What `changed` needs to know of a Linear's input."""

    @abstractmethod
    def changed(self, site: Site, evidence: Any) -> torch.Tensor:
        """A Linear's changed weight, (O, I), from the result of `inputs`."""
