"""How a budget is shared among blocks, or among their sites.

Axes: O output features, I input features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch

from lightning_prune.anatomy import Block, Site
from lightning_prune.evidence import InputEvidence

__all__ = ["Allocation", "Uniform"]


class Allocation(ABC):
    """From one budget for the whole model to one share for each block, or each site.

    Attributes:
        per: what gets a share of its own.
        evidence: what is collected on the dense model, in a forward pass of its own, to tell how
            important each block is; None: nothing is.
        windows: if not 0, importance is measured on the first so many calibration windows, as what
            a block's output loses when one of its sites is `damaged`.
    """

    per: ClassVar[Literal["block", "site"]] = "block"
    evidence: ClassVar[type[InputEvidence] | None] = None
    windows: int = 0

    def importance(self, block: Block, evidence: Mapping[str, Any]) -> float:
        """How important a block is; asked for with the results of `evidence`, by input name."""
        raise NotImplementedError(f"{type(self).__name__} asks for evidence and does not use it")

    def damaged(self, site: Site, evidence: Any) -> torch.Tensor:
        """A site's weight as a trial would leave it, (O, I), from the evidence of its input."""
        raise NotImplementedError(f"{type(self).__name__} asks for trials and makes none")

    @abstractmethod
    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The fraction to remove from each block, or from each site of each block.

        Args:
            budget: fraction to remove overall.
            sizes: what each has of it: parameters or units.
            importance: of each; empty without evidence.

        Raises:
            ValueError: the budget cannot be shared among so many.
        """

    def __repr__(self) -> str:
        """The call that makes it again; what a subclass stores under its own names."""
        said = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({said})"


class Uniform(Allocation):
    """The same fraction from every block, so that equal blocks stay equal."""

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The budget, once a block."""
        return [budget] * len(sizes)
