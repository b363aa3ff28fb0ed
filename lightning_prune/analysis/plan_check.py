"""Whether the zeros of saved weights are those that the plan beside them decided on.

Axes: O output features, I input features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lightning_prune.plan import Plan

__all__ = ["MaskCheck", "PlanCheck", "PlanComparison"]


@dataclass(frozen=True)
class PlanCheck:
    """Whether the zeros are those of the plan that lies beside the weights.

    Attributes:
        matrices: how many of the plan's masks were compared.
        removed_nonzero: weights that the plan removes and that are not zero.
        kept_zero: weights that the plan keeps and that are zero.
        problem: why a mask, or the whole plan, could not be compared; "" if all could.
    """

    matrices: int
    removed_nonzero: int
    kept_zero: int
    problem: str = ""

    @property
    def agrees(self) -> bool:
        """Whether all that the plan removes is zero."""
        return not self.problem and self.removed_nonzero == 0


class MaskCheck:
    """One mask, compared with the rows of its weight as they come."""

    def __init__(self, keep_OI: torch.Tensor) -> None:
        self._keep_OI, self._row = keep_OI, 0
        self.removed_nonzero = self.kept_zero = 0

    def compare(self, nonzero_OI: torch.Tensor) -> None:
        """Compare the next rows."""
        keep_OI = self._keep_OI[self._row : self._row + len(nonzero_OI)]
        self._row += len(nonzero_OI)
        self.removed_nonzero += int((nonzero_OI & ~keep_OI).sum())
        self.kept_zero += int((~nonzero_OI & keep_OI).sum())


class PlanComparison:
    """The plan of a folder, and what comparing its masks has shown so far."""

    def __init__(self, folder: Path) -> None:
        self._plan, self._problem = Plan(), ""
        self._compared: dict[str, tuple[int, int]] = {}
        if (folder / "plan.json").is_file():
            try:
                self._plan = Plan.load(folder)
            except (FileNotFoundError, ValueError) as error:
                self._problem = str(error)

    def mask(self, name: str, shape: tuple[int, ...]) -> MaskCheck | None:
        """The mask of the weight `name`, if the plan has one that fits."""
        if name not in self._plan.mask_names:
            return None
        planned = tuple(self._plan.mask_shape(name))
        if planned != shape:
            self._problem = f"the plan's mask of {name} has shape {planned}, the weight {shape}"
            return None
        return MaskCheck(self._plan.mask(name))

    def note(self, name: str, mask: MaskCheck | None) -> None:
        """Keep what a mask, compared with all its rows, has shown."""
        if mask is not None:
            self._compared[name] = (mask.removed_nonzero, mask.kept_zero)

    def result(self) -> PlanCheck | None:
        """What came out; None where there is no plan with masks."""
        missing = [name for name in self._plan.mask_names if name not in self._compared]
        if missing and not self._problem:
            self._problem = f"the plan has a mask of {missing[0]}, which is not in the folder"
        if not self._compared and not self._problem:
            return None
        comparisons = list(self._compared.values())
        return PlanCheck(
            len(comparisons),
            sum(f[0] for f in comparisons),
            sum(f[1] for f in comparisons),
            self._problem,
        )
