"""The family of methods that take whole blocks, or their attention or MLP, out of a model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.evidence import BlockEvidence, Evidence, Part, Removal
from lightning_prune.methods.base import Decision, Method, Scores
from lightning_prune.selection import removed_count

__all__ = ["BlockPruning"]

KINDS = {"block": "block", "attention": "group", "mlp": "neuron"}


class BlockPruning(Method):
    """Methods that make a model shallower: blocks of least score go.

    Args:
        count: how many to drop. Give one of `count`, `ratio` and `indices`, or a plan.
        ratio: fraction of the blocks to drop, rounded down.
        indices: which ones; nothing is measured.
        contiguous: drop consecutive blocks, those which together have the least influence.
        part: "block", or its "attention" or "mlp" alone.

    Raises:
        ValueError: an argument is out of range, or two say how many.
    """

    cuts = True

    count: int | None = None
    ratio: float | None = None
    indices: Sequence[int] | None = None
    contiguous: bool = False
    part: Part = "block"

    def __post_init__(self) -> None:
        super().__post_init__()
        asked = [name for name in ("count", "ratio", "indices") if getattr(self, name) is not None]
        if self.plan is None and len(asked) != 1:
            raise ValueError(
                f"{type(self).__name__} takes one of count=4, ratio=0.25 and indices=[20, 21]; got "
                f"{' and '.join(asked) or 'none'}"
            )
        self.require("count", self.count is None or self.count >= 1, "it is 1 or more")
        self.require("ratio", self.ratio is None or 0 < self.ratio < 1, "it is in (0, 1)")
        self.require("block_fit", self.block_fit is None, "it is None: what is dropped has no fit")
        whole = not self.contiguous or self.part == "block"
        self.require("part", whole, "contiguous=True takes whole blocks, part='block'")

    @property
    @abstractmethod
    def evidence(self) -> BlockEvidence | Removal | None:
        """What tells the influence of a block; None where the blocks are named."""

    def requests(self, blocks: Sequence[Block] = ()) -> tuple[Evidence, ...]:
        """Blocks that go together are measured as one."""
        if self.evidence is not None and self.contiguous and blocks:
            return (self.evidence.spanning(self.number(blocks)),)
        return super().requests(blocks)

    # --- what is dropped ---

    def size(self, block: Block) -> int:
        """What a block counts in the budget: one, however large it is."""
        return 1

    def budget(self, anatomy: Anatomy) -> float:
        """The fraction of the chosen blocks that goes."""
        blocks = self.blocks(anatomy)
        return self.number(blocks) / len(blocks)

    def number(self, blocks: Sequence[Block]) -> int:
        """How many of these blocks go."""
        if self.indices is not None:
            return len(self.indices)
        return self.count or removed_count(len(blocks), self.ratio or 0.0)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse to drop nothing, everything, or what is not there."""
        super().check(anatomy)
        anatomy.check_removable()
        blocks = self.blocks(anatomy)
        number = self.number(blocks)
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
        """One number a block, of kind "block"; none where the blocks are named."""
        return {
            kind: torch.tensor([value], dtype=torch.float64) for kind, value in evidence.items()
        }

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
        gone = set(self.indices) if self.indices is not None else self._lowest(blocks, scores)
        kind = KINDS[self.part]
        decisions = {}
        for block in blocks:
            kept = 0 if block.index in gone else block.units(kind)
            decisions[block.index] = Decision(kept={kind: torch.arange(kept)})
        return decisions

    def _lowest(self, blocks: Sequence[Block], scores: Scores) -> set[int]:
        number = self.number(blocks)
        ranked = sorted(
            (float(scores[block.index]["block"]), block.index)
            for block in blocks
            if scores[block.index] and self._may_go(blocks, block)
        )
        if not self.contiguous:
            return {index for _, index in ranked[:number]}
        first = ranked[0][1]
        return set(range(first, first + number))

    def _may_go(self, blocks: Sequence[Block], block: Block) -> bool:
        span = self.number(blocks) if self.contiguous else 1
        return block.units(KINDS[self.part]) > 0 and block.index + span - 1 <= blocks[-1].index
