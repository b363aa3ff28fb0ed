"""DropBlocks: take whole blocks out, or their attention or MLP alone.

Source: Men et al., "ShortGPT", arXiv 2403.03853 (the blocks that change least what passes through
them go, wherever they are); Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers",
arXiv 2403.17887 (consecutive ones, by the angle between the input of the first and the output of
the last); Sandri et al., "2SSP" (attention alone).
Differs: influence is the mean over all calibration tokens (that of Gromov and of 2SSP is of the
last token of each window), with the cosine clamped; "removal" measures each part alone, once, on
several calibration windows (2SSP on one, anew after each attention that it has dropped); any block
may go (2SSP keeps the first).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch

from lightning_prune.allocation import MEASURES
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.method import Decision, Scores
from lightning_prune.selection import removed_count
from lightning_prune.sweep import Part

__all__ = ["DropBlocks"]

KINDS = {"block": "block", "attention": "group", "mlp": "neuron"}


class DropBlocks(PruningCallback):
    """Make the model shallower: the blocks of least influence go.

    What is left is numbered anew. Without whole blocks it is a stock model; without the attention
    or the MLP of some it needs a class of its own.

    ```python
    DropBlocks(count=8)                                           # ShortGPT
    DropBlocks(count=8, measure="angular", contiguous=True)       # Gromov et al.
    DropBlocks(count=6, part="attention", measure="removal")
    DropBlocks(indices=[21, 22, 23])
    ```

    Args:
        count: how many to drop. Give one of `count`, `ratio` and `indices`, or a plan.
        ratio: fraction of the blocks to drop, rounded down.
        indices: which ones; nothing is measured.
        measure: "cosine" (block influence), "angular", "mse" or "mae": how much a block changes
            what passes through it; "removal": what the perplexity of calibration windows rises by
            without it.
        contiguous: drop consecutive blocks, those which together have the least influence.
        part: "block", or its "attention" or "mlp" alone.
        windows: calibration windows to measure "removal" on; 0: all.
        settings: the arguments of `PruningCallback`.

    Raises:
        ValueError: an argument is out of range, or two say how many.
    """

    survey = True
    cuts = True

    def __init__(
        self,
        count: int | None = None,
        ratio: float | None = None,
        indices: Sequence[int] | None = None,
        measure: str = "cosine",
        contiguous: bool = False,
        part: Part = "block",
        windows: int = 8,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.count, self.ratio, self.indices = count, ratio, indices
        self.contiguous, self.part, self.windows = contiguous, part, windows
        self.measure = measure
        given = [name for name in ("count", "ratio", "indices") if getattr(self, name) is not None]
        if self.plan is None and len(given) != 1:
            raise ValueError(
                "DropBlocks takes one of count=4, ratio=0.25 and indices=[20, 21]; got "
                f"{' and '.join(given) or 'none'}"
            )
        if measure not in MEASURES or measure == "norm" or part not in get_args(Part):
            known = ", ".join(name for name in MEASURES if name != "norm")
            raise ValueError(
                f"measure={measure!r}, part={part!r}: measure is one of {known}; part one of "
                f"{', '.join(get_args(Part))}"
            )
        if (count is not None and count < 1) or (ratio is not None and not 0 < ratio < 1):
            raise ValueError(f"count={count} must be 1 or more, ratio={ratio} in (0, 1)")
        if windows < 0:
            raise ValueError(f"windows={windows}: give 1 or more calibration windows, or 0 for all")
        if contiguous and (part != "block" or measure == "removal"):
            raise ValueError(
                "contiguous=True takes whole blocks, by their influence: part='block' and a "
                f"measure that is not 'removal'; got part={part!r}, measure={measure!r}"
            )
        if self.allocation is not None:
            raise ValueError("DropBlocks has no budget to share; leave the allocation out")

    @property
    def influence(self) -> str | None:  # type: ignore[override]
        """What has to be measured."""
        return self.measure if self.indices is None else None

    # --- what is dropped ---

    def size(self, block: Block) -> int:
        """A block is a block."""
        return 1

    def budget(self, anatomy: Anatomy) -> float:
        """The fraction of the chosen blocks that goes."""
        blocks = self.blocks(anatomy)
        return self._number(blocks) / len(blocks)

    def _number(self, blocks: Sequence[Block]) -> int:
        if self.indices is not None:
            return len(self.indices)
        return self.count or removed_count(len(blocks), self.ratio or 0.0)

    def span(self, anatomy: Anatomy) -> int:
        """As many blocks as go together are measured as one."""
        return self._number(self.blocks(anatomy)) if self.contiguous else 1

    def check(self, anatomy: Anatomy) -> None:
        """Refuse to drop nothing, everything, or what is not there."""
        blocks = self.blocks(anatomy)
        number = self._number(blocks)
        allowed = [block.index for block in blocks if block.units(KINDS[self.part])]
        most = len(allowed) - (self.part == "block" and len(blocks) == len(anatomy.blocks))
        if self.indices is not None and not set(self.indices) <= set(allowed):
            raise ValueError(
                f"indices={list(self.indices)} names blocks without {self.part}, or outside of the "
                f"chosen ones; these can go: {allowed}"
            )
        if not 0 < number <= most or (self.indices and len(set(self.indices)) != number):
            raise ValueError(
                f"{self!r} drops {number} of {len(allowed)} blocks that have what is asked for; "
                f"1 to {most} can go"
            )

    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Nothing is measured where the blocks are named."""
        return {}

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """All or nothing; see `decide`."""
        raise NotImplementedError("blocks are chosen together")

    def decide(
        self,
        blocks: Sequence[Block],
        scores: Scores,
        shares: Mapping[int, float],
        budget: float,
    ) -> dict[int, Decision]:
        """The lowest go, or the span that is lowest, from its first block on."""
        if self.indices is not None:
            gone = set(self.indices)
        else:
            ranked = sorted(
                (float(scores[b.index]["block"]), b.index) for b in blocks if scores[b.index]
            )
            ranked = [(value, index) for value, index in ranked if self._may_go(blocks, index)]
            number = self._number(blocks)
            first = ranked[0][1]
            gone = (
                set(range(first, first + number))
                if self.contiguous
                else {index for _, index in ranked[:number]}
            )
        kind = KINDS[self.part]
        decisions = {}
        for block in blocks:
            kept = 0 if block.index in gone else block.units(kind)
            decisions[block.index] = Decision(kept={kind: torch.arange(kept)})
        return decisions

    def _may_go(self, blocks: Sequence[Block], index: int) -> bool:
        span = self._number(blocks) if self.contiguous else 1
        block = next(b for b in blocks if b.index == index)
        return block.units(KINDS[self.part]) > 0 and index + span - 1 <= blocks[-1].index
