"""The relevance of one weight for what the model answers, over the calibration set.

Axes: O output features, I input features.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn

from lightning_prune import distributed
from lightning_prune.attribution import attnlrp
from lightning_prune.evidence.gradients import Gradients
from lightning_prune.evidence.objective import Logit, Objective

__all__ = ["Relevance"]


class Relevance(Gradients):
    """w · ∂y/∂w of one weight, y being the objective, by the rules of AttnLRP.

    A relevance has a sign: it speaks for the answer, or against it. Its mean over the calibration
    set is what a reference set agrees on; a mean of magnitudes is how much a weight takes part.

    Args:
        objective: the output that is explained.
        squares: as of `Gradients`.
        magnitudes: also keep the magnitude of every sequence's own relevance: twice the memory.
    """

    objective: Objective = Logit()
    magnitudes: bool = False

    def rules(self, model: nn.Module) -> AbstractContextManager[None]:
        """Those of AttnLRP."""
        return attnlrp(model)

    def start(self) -> None:
        """Relevance summed over no sequence."""
        super().start()
        self._magnitudes_OI = torch.zeros_like(self._sum_OI) if self.magnitudes else None

    def update_own(self, gradient_OI: torch.Tensor) -> None:
        """Add the magnitude of what one sequence alone says."""
        super().update_own(gradient_OI)
        if self._magnitudes_OI is not None:
            self._magnitudes_OI += gradient_OI.abs()

    def complete(self, total: float) -> None:
        """Add up over processes, and make sums means."""
        super().complete(total)
        if self._magnitudes_OI is not None:
            distributed.sum_(self._magnitudes_OI)

    @property
    def by_sequence(self) -> bool:
        """Whether each sequence alone is looked at."""
        return self.magnitudes or super().by_sequence

    @property
    def floats(self) -> int:
        """The sum, that of magnitudes, that of squares."""
        return super().floats + self.magnitudes

    @property
    def magnitude_OI(self) -> torch.Tensor:
        """Mean of |w·g| over sequences (fp32)."""
        assert self._magnitudes_OI is not None, "made without magnitudes"
        mean_OI = self._magnitudes_OI / self._sequences
        return (self.weight_OI.double().abs() * mean_OI).float()
