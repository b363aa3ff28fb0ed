"""Shares from the importance of blocks: Inverse, Proportional, and the sigmoid of CFSP."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from lightning_prune.allocation.base import Allocation
from lightning_prune.allocation.exact import meet, meet_in_proportion
from lightning_prune.anatomy import Block
from lightning_prune.checks import meant_value
from lightning_prune.evidence import Evidence, Measure, measure

__all__ = ["ByImportance", "CFSPSigmoid", "Inverse", "Proportional", "read_importance"]


def read_importance(path: str | Path, blocks: Sequence[int], total: int) -> list[float]:
    """The importance of some blocks from a file that `lightning-prune importance` wrote.

    Args:
        path: of the JSON file.
        blocks: indices of the blocks.
        total: how many blocks the model has.

    Raises:
        ValueError: no such file, not one of this kind, or of another model.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))["values"]
        importance = {int(index): float(value) for index, value in values.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"importance={str(path)!r} is no file of `lightning-prune importance` ({error!r}). "
            "Make one with that command, and give the path of its importance.json."
        ) from error
    finite = all(map(math.isfinite, importance.values()))
    if sorted(importance) != list(range(total)) or not finite:
        raise ValueError(
            f"{path} has {len(importance)} values, for blocks {sorted(importance)[:3]}…, and the "
            f"model has blocks 0 to {total - 1}: each needs one finite number. Was it made for "
            "another model?"
        )
    return [importance[index] for index in blocks]


class ByImportance(Allocation):
    """Shares that depend on how important blocks are, measured or read from a file.

    Args:
        importance: a measure: "removal" (what the perplexity rises by without the block), "norm"
            (of its output), or how much it changes what passes through it: "angular", "cosine",
            "mse", "mae". Or the path of an importance.json.
        windows: calibration windows to measure "removal" on; 0: all.

    Raises:
        ValueError: neither a measure nor a path.
    """

    importance: str = "angular"
    windows: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        measures = get_args(Measure)
        self.require(
            "importance",
            self.importance in measures or str(self.importance).endswith(".json"),
            f"it is one of {', '.join(map(repr, measures))}, or the path of an importance.json."
            + meant_value(self.importance, measures),
        )
        self.require("windows", self.windows >= 0, "it is 1 or more calibration windows, or 0: all")

    @property
    def evidence(self) -> Evidence | None:
        """What the measure asks for; None with a file."""
        if self.importance not in get_args(Measure):
            return None
        return measure(self.importance, windows=self.windows)  # type: ignore[arg-type]

    def measured(self, block: Block, evidence: Mapping[str, Any]) -> list[float]:
        """The importance of a block, as the sweep has measured it; one number."""
        return [evidence["block"]]

    def known_importance(self, blocks: Sequence[int], total: int) -> list[float]:
        """The importance that the file gives each of the blocks, for all of a model's."""
        return read_importance(self.importance, blocks, total)

    @property
    def identity(self) -> str:
        """With what the file holds, if there is one."""
        file = Path(self.importance)
        read = self.evidence is None and file.is_file()
        return repr(self) + (f" {file.read_text(encoding='utf-8')}" if read else "")

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The fraction to remove from each block.

        Raises:
            ValueError: importance is not finite, or the budget is outside the limits.
        """
        if not all(map(math.isfinite, importance)):
            raise ValueError(
                f"the importance of blocks by {self.importance} is not finite: {list(importance)}. "
                "Load the model in bfloat16 or float32, or take another measure"
            )
        return self._shares(budget, sizes, importance)

    @abstractmethod
    def _shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """From finite importance."""


class _Unbalanced(ByImportance):
    """What `Inverse` and `Proportional` share.

    Source: the unbalanced rates of GQA-aware pruning: importance x is scaled to n in [0, 1], with
    a logarithm before it if asked for, and raised to the power alpha; the wish is n, or 1 - n.
    Shares are proportional to the wishes, within limits.

    Differs from its code, whose rates can miss the target after clipping: what is cut off is
    shared out again (water-filling), by parameters, until the budget is met. Equal importance
    gives equal shares (theirs divides by about zero), and rates belong to blocks by their number.
    """

    importance: str = "removal"
    alpha: float = 1.0
    min_share: float = 0.0
    max_share: float = 0.8
    log: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("alpha", self.alpha > 0, "it is above 0")
        self.require("max_share", 0 < self.max_share < 1, "it is in (0, 1)")
        self.require(
            "min_share",
            0 <= self.min_share < self.max_share,
            f"it is in [0, max_share), and max_share is {self.max_share}",
        )

    def wish(self, scaled: float) -> float:
        """Of a block whose importance is scaled to [0, 1] and raised to alpha."""
        raise NotImplementedError

    def _shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """In proportion to the wishes."""
        if not self.min_share <= budget <= self.max_share:
            raise ValueError(
                f"{self!r} gives every block a share between min_share={self.min_share} and "
                f"max_share={self.max_share}, and {budget:.3g} is asked for overall; widen the "
                "limits"
            )
        least = min(importance)
        values = [math.log1p(x - least) if self.log else x - least for x in importance]
        width = max(values)
        wishes = [self.wish((v / width) ** self.alpha) if width > 0 else 1.0 for v in values]
        return meet_in_proportion(wishes, budget, sizes, self.min_share, self.max_share)


class Inverse(_Unbalanced):
    """Remove more from blocks that are less important.

    ```python
    GQATaylor(ratio=0.25, allocation=Inverse(alpha=1.0, min_share=0.15, max_share=0.5))
    GQATaylor(ratio=0.25, allocation=Inverse(importance="runs/importance/importance.json"))
    ```

    Args:
        importance: a measure, or the path of an importance.json; see `ByImportance`.
        alpha: of the power; above 1, few blocks stand out as important.
        min_share: least share of a block.
        max_share: largest share of a block.
        log: take the logarithm of importance first, for one that spans orders of magnitude.
        windows: calibration windows to measure "removal" on; 0: all.

    Raises:
        ValueError: an argument is out of range.
    """

    def wish(self, scaled: float) -> float:
        """1 less the importance."""
        return 1 - scaled


class Proportional(_Unbalanced):
    """Remove more from blocks that are more important: the opposite, to compare with.

    Args:
        importance: a measure, or the path of an importance.json; see `ByImportance`.
        alpha: of the power.
        min_share: least share of a block.
        max_share: largest share of a block.
        log: take the logarithm of importance first.
        windows: calibration windows to measure "removal" on; 0: all.

    Raises:
        ValueError: an argument is out of range.
    """

    def wish(self, scaled: float) -> float:
        """The share to remove, before the budget is met: the more, the larger the value."""
        return scaled


TOKENS = 13.1072
"""128 x 1024 calibration tokens of CFSP's code, over the 10⁴ that it divides their sum by."""


class CFSPSigmoid(ByImportance):
    """Keep more of blocks that change more what passes through them, by a sigmoid.

    Source: Wang et al., "CFSP", arXiv 2409.13199, and its code: with L the mean influence per token
    and s = sigmoid(13.1072·a·(L - mean L)), a block keeps s / mean(s) of what it would keep.

    Differs from the code, which sums over tokens and divides by 10⁴, so that its shares depend on
    the number of tokens: 13.1072 is what makes it the same for the 131,072 that it was made with.
    Its guard (a block would keep more than all of it) is there; then the budget is met exactly, by
    parameters.

    Args:
        importance: a measure, or the path of an importance.json; see `ByImportance`.
        a: steepness; 0 is uniform.
        max_share: largest share of a block.
        windows: calibration windows to measure "removal" on; 0: all.

    Raises:
        ValueError: an argument is out of range.
    """

    a: float = 1.0
    max_share: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("a", 0 <= self.a < math.inf, "it is 0 or more")
        self.require("max_share", 0 < self.max_share < 1, "it is in (0, 1)")

    def _shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """What a block does not keep."""
        keep = sigmoid_keep(budget, importance, self.a)
        return meet([1 - k for k in keep], budget, sizes, high=max(self.max_share, budget))


def sigmoid_keep(budget: float, importance: Sequence[float], a: float) -> list[float]:
    """What each block keeps, with a mean over blocks of 1 - budget.

    Args:
        budget: what goes overall.
        importance: of each block, a mean per token.
        a: steepness.
    """
    mean = sum(importance) / len(importance)
    raised = [_sigmoid(TOKENS * a * (value - mean)) for value in importance]
    middle, top = sum(raised) / len(raised), max(raised)
    if top > middle and top / middle * (1 - budget) >= 1:  # it would keep more than all of it
        shrink = middle * (1 / (1 - budget) - 1) / (top - middle) / 1.05
        raised = [middle + (value - middle) * shrink for value in raised]
        middle = sum(raised) / len(raised)
    return [value / middle * (1 - budget) for value in raised]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
