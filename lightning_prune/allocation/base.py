"""How a budget is shared among blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lightning_prune.anatomy import Block
from lightning_prune.evidence import InputEvidence

__all__ = ["Allocation", "Uniform"]


class Allocation(ABC):
    """From one budget for the whole model to one share for each block.

    Attributes:
        evidence: what is collected on the dense model, in a forward pass of its own, to tell how
            important each block is; None: nothing is.
    """

    evidence: ClassVar[type[InputEvidence] | None] = None

    def importance(self, block: Block, evidence: Mapping[str, Any]) -> float:
        """How important a block is; asked for with the results of `evidence`, by input name."""
        raise NotImplementedError(f"{type(self).__name__} asks for evidence and does not use it")

    @abstractmethod
    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The fraction to remove from each block.

        Args:
            budget: fraction to remove overall.
            sizes: what each block has of it: parameters or units.
            importance: of each block; empty without evidence.

        Raises:
            ValueError: the budget cannot be shared among so many blocks.
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
