"""Shares from the importance of blocks: Inverse, Proportional, and the sigmoid of CFSP."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from lightning_prune.allocation.base import Allocation
from lightning_prune.allocation.exact import meet, meet_in_proportion

__all__ = ["MEASURES", "ByImportance", "CFSPSigmoid", "Inverse", "Proportional", "read_importance"]

MEASURES = ("removal", "norm", "angular", "cosine", "mse", "mae")
"""How the importance of blocks can be measured; see `lightning-prune importance --help`."""


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
        found = {int(index): float(value) for index, value in values.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"importance={str(path)!r} is no file of `lightning-prune importance` ({error!r}). "
            "Make one with that command, and give the path of its importance.json."
        ) from error
    if sorted(found) != list(range(total)) or not all(map(math.isfinite, found.values())):
        raise ValueError(
            f"{path} has {len(found)} values, for blocks {sorted(found)[:3]}…, and the model has "
            f"blocks 0 to {total - 1}: each needs one finite number. Was it made for another model?"
        )
    return [found[index] for index in blocks]


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

    def __init__(self, importance: str = "angular", windows: int = 8) -> None:
        self.given = importance
        self.windows = windows
        if importance not in MEASURES and not importance.endswith(".json"):
            raise ValueError(
                f"importance={importance!r} is neither a measure ({', '.join(MEASURES)}) nor the "
                "path of an importance.json"
            )
        if windows < 0:
            raise ValueError(f"windows={windows}: give 1 or more calibration windows, or 0 for all")

    @property
    def measure(self) -> str | None:  # type: ignore[override]
        """The measure; None with a file."""
        return self.given if self.given in MEASURES else None

    def known_importance(self, blocks: Sequence[int], total: int) -> list[float]:
        """From the file."""
        return read_importance(self.given, blocks, total)

    @property
    def identity(self) -> str:
        """With what the file holds, if there is one."""
        file = Path(self.given)
        read = self.measure is None and file.is_file()
        return repr(self) + (f" {file.read_text(encoding='utf-8')}" if read else "")

    def __repr__(self) -> str:
        """The call that makes it again."""
        return super().__repr__().replace("given=", "importance=")

    def shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """The fraction to remove from each block.

        Raises:
            ValueError: importance is not finite, or the budget is outside the limits.
        """
        if not all(map(math.isfinite, importance)):
            raise ValueError(
                f"the importance of blocks by {self.given} is not finite: {list(importance)}. Load "
                "the model in bfloat16 or float32, or take another measure"
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

    def __init__(
        self,
        importance: str = "removal",
        alpha: float = 1.0,
        lowest: float = 0.0,
        highest: float = 0.8,
        log: bool = False,
        windows: int = 8,
    ) -> None:
        super().__init__(importance, windows)
        if alpha <= 0 or not 0 <= lowest < highest < 1:
            raise ValueError(
                f"{type(self).__name__} needs alpha > 0 and 0 <= lowest < highest < 1; got "
                f"alpha={alpha}, lowest={lowest}, highest={highest}"
            )
        self.alpha, self.lowest, self.highest, self.log = alpha, lowest, highest, log

    def wish(self, scaled: float) -> float:
        """Of a block whose importance is scaled to [0, 1] and raised to alpha."""
        raise NotImplementedError

    def _shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """In proportion to the wishes."""
        if not self.lowest <= budget <= self.highest:
            raise ValueError(
                f"{self!r} gives every block a share between lowest={self.lowest} and highest="
                f"{self.highest}, and {budget:.3g} is asked for overall; widen the limits"
            )
        least = min(importance)
        values = [math.log1p(x - least) if self.log else x - least for x in importance]
        width = max(values)
        wishes = [self.wish((v / width) ** self.alpha) if width > 0 else 1.0 for v in values]
        return meet_in_proportion(wishes, budget, sizes, self.lowest, self.highest)


class Inverse(_Unbalanced):
    """Remove more from blocks that are less important.

    ```python
    GQATaylor(ratio=0.25, allocation=Inverse("removal", alpha=1.0, lowest=0.15, highest=0.5))
    GQATaylor(ratio=0.25, allocation=Inverse("runs/importance/importance.json"))
    ```

    Args:
        importance: a measure, or the path of an importance.json; see `ByImportance`.
        alpha: of the power; above 1, few blocks stand out as important.
        lowest: least share of a block.
        highest: largest share of a block.
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
        lowest: least share of a block.
        highest: largest share of a block.
        log: take the logarithm of importance first.
        windows: calibration windows to measure "removal" on; 0: all.

    Raises:
        ValueError: an argument is out of range.
    """

    def wish(self, scaled: float) -> float:
        """The importance."""
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
        highest: largest share of a block.
        windows: calibration windows to measure "removal" on; 0: all.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, importance: str = "angular", a: float = 1.0, highest: float = 0.95, windows: int = 8
    ) -> None:
        super().__init__(importance, windows)
        if not (0 <= a < math.inf and 0 < highest < 1):
            raise ValueError(
                f"CFSPSigmoid needs a >= 0 and 0 < highest < 1; got a={a}, highest={highest}"
            )
        self.a, self.highest = a, highest

    def _shares(
        self, budget: float, sizes: Sequence[int], importance: Sequence[float]
    ) -> list[float]:
        """What a block does not keep."""
        keep = sigmoid_keep(budget, importance, self.a)
        return meet([1 - k for k in keep], budget, sizes, highest=max(self.highest, budget))


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
