"""The family of methods that cut whole units off.

Axes: U units of one block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from lightning_prune.allocation import Allocation, Pool, Uniform, most
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.methods.base import Decision, Method, Scores
from lightning_prune.repair import LeastSquares, Repair
from lightning_prune.selection import keep_units

__all__ = ["UnitPruning"]


class UnitPruning(Method):
    """Methods that remove whole units, so that the model gets smaller.

    How much goes is counted in parameters of the units asked for. Units are whole, and a GQA group
    is large; where groups do not make up the budget, neurons do.

    Args:
        ratio: fraction of the parameters of all units to remove, in (0, 1). Give this or
            `parameters`, unless a plan is given.
        parameters: how many parameters the whole model is to have afterwards.
        attention: remove GQA groups: query heads with the key/value head that they share.
        mlp: remove MLP neurons.
        attention_ratio: fraction of the GQA groups to remove, where it is not to be that of the
            neurons; these make up the rest of the budget.
        allocation: how the budget is shared among blocks; `Uniform()`: the same share for all.
        repair: what is done about what was removed; None: nothing.
        min_units: how many units of each kind every block keeps at least.
        round_to: the number of neurons that stay in a block is a multiple of it, such as 128 for
            tensor cores or 256 for GGUF quantisation, unless all stay.

    Raises:
        ValueError: an argument is out of range, or neither attention nor mlp is asked for.
    """

    cuts = True

    ratio: float | None = None
    parameters: int | None = None
    attention: bool = True
    mlp: bool = True
    attention_ratio: float | None = None
    allocation: Allocation = Uniform()
    repair: Repair | None = LeastSquares()
    min_units: int = 1
    round_to: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.effective_allocation.per == "site":
            raise ValueError(
                f"allocation={self.allocation!r} shares among single matrices, and units reach "
                "over several; take an allocation per block"
            )
        if not self.kinds:
            raise ValueError("attention=False, mlp=False leaves nothing to prune; set one of them")
        if self.plan is None and (self.ratio is None) == (self.parameters is None):
            raise ValueError(
                f"{type(self).__name__} takes ratio=0.3 or parameters=…, one of the two; got "
                f"ratio={self.ratio}, parameters={self.parameters}"
            )
        self.require(
            "ratio",
            self.ratio is None or 0 < self.ratio < 1,
            "it is in (0, 1): the fraction of the parameters of all units that is removed, and 1 "
            "would remove every GQA group and every neuron",
        )
        if self.attention_ratio is not None:
            self.require("attention_ratio", 0 <= self.attention_ratio < 1, "it is in [0, 1)")
            self.require(
                "attention_ratio",
                self.attention and self.mlp,
                "it needs attention=True and mlp=True: neurons make up the rest of the budget",
            )
        for name in ("min_units", "round_to"):
            self.require(name, getattr(self, name) >= 1, "it is 1 or more")

    # --- what is pruned ---

    @property
    def effective_allocation(self) -> Allocation:
        """The allocation given."""
        return self.allocation

    @property
    def effective_repair(self) -> Repair | None:
        """The repair given."""
        return self.repair

    @property
    def keeps_even(self) -> bool:
        """Whether blocks that are alike stay so."""
        return isinstance(self.effective_allocation, Uniform)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of units asked for."""
        return ("group",) * self.attention + ("neuron",) * self.mlp

    def kinds_of(self, block: Block) -> tuple[str, ...]:
        """Those that the block has units of: its attention or its MLP may have been taken out."""
        return tuple(kind for kind in self.kinds if block.units(kind))

    def pools(self, blocks: Sequence[Block]) -> list[Pool]:
        """The units of each kind in each block; kinds that a block has none of are left out."""
        return [
            Pool(
                block.index,
                kind,
                block.units(kind),
                block.unit_size(kind),
                min_units=self.min_units,
                round_to=self.round_to if kind == "neuron" else 1,
            )
            for block in blocks
            for kind in self.kinds_of(block)
        ]

    def size(self, block: Block) -> int:
        """Parameters of all units asked for."""
        return sum(pool.parameters for pool in self.pools([block]))

    def budget(self, anatomy: Anatomy) -> float:
        """The fraction of the units' parameters that goes."""
        if self.parameters is None:
            return self.ratio or 0.0
        total = sum(parameter.numel() for parameter in anatomy.model.parameters())
        total += self.new_biases(anatomy)
        return (total - self.parameters) / sum(self.size(b) for b in self.blocks(anatomy))

    def new_biases(self, anatomy: Anatomy) -> int:
        """Parameters of the biases that the repair gives to Linears without one."""
        if self.repair is None or not self.repair.adds_biases:
            return 0
        kinds = [(block, kind) for block in anatomy.blocks for kind in self.kinds_of(block)]
        readers = [block.reader(kind).site.module for block, kind in kinds]
        return sum(linear.out_features for linear in readers if linear.bias is None)

    # --- what is refused ---

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a budget that no number of whole units makes up."""
        super().check(anatomy)
        pools = self.pools(self.blocks(anatomy))
        if not most(pools):
            switches = [s for s, on in (("attention", self.attention), ("mlp", self.mlp)) if on]
            raise ValueError(
                f"{' and '.join(f'{s}=True' for s in switches)}, and no block has "
                f"{' or '.join(f'{kind}s' for kind in self.kinds)} to spare: {self.min_units} must "
                f"stay{f', neurons in multiples of {self.round_to}' if self.round_to > 1 else ''}"
            )
        total, highest = sum(pool.parameters for pool in pools), most(pools)
        target = self.budget(anatomy) * total
        asked = (
            f"ratio={self.ratio}" if self.parameters is None else f"parameters={self.parameters}"
        )
        kinds = " and ".join(f"{kind}s" for kind in self.kinds)
        if not 0 < target <= highest:
            raise ValueError(
                f"{asked} would remove {target / total:.1%} of the parameters of all {kinds}, and "
                f"up to {highest / total:.1%} can go, as some must stay in every block. Ask for "
                "something in between."
            )
        self._check_parts(pools, target)
        self._check_shares(anatomy)
        steps = [((pool.above(0) or pool.units) * pool.size, pool) for pool in pools]
        step, pool = min(steps, key=lambda choice: choice[0])
        part = total / len(self.blocks(anatomy)) if self.keeps_even else total
        if 2 * target * part / total < step:
            enough = math.ceil(1000 * step / part) / 1000
            raise ValueError(
                f"{asked} of the {pool.units} {pool.kind}s in a block removes none. Ask for "
                f"ratio={enough} or more."
            )

    def _check_parts(self, pools: Sequence[Pool], target: float) -> None:
        """Refuse a share of the groups that the budget, or the neurons, cannot make up for."""
        if self.attention_ratio is None:
            return
        groups = [pool for pool in pools if pool.kind == "group"]
        neurons = [pool for pool in pools if pool.kind == "neuron"]
        goal = self.attention_ratio * sum(pool.parameters for pool in groups)
        # How many go does not depend on which: any scores will do.
        alike = {pool.block: {pool.kind: torch.zeros(pool.units)} for pool in groups}
        counts = self._share(groups, alike, dict.fromkeys(alike, 1.0), 1.0, goal)
        gone = sum(pool.size * count for pool, count in zip(groups, counts, strict=True))
        step = max(((pool.above(0) or 0) * pool.size for pool in neurons), default=0) / 2
        if self.keeps_even:
            step *= len(neurons)
        if not -step <= target - gone <= most(neurons) + step:
            raise ValueError(
                f"attention_ratio={self.attention_ratio} takes {gone:,.0f} parameters, in whole "
                f"groups, of {target:,.0f} asked for, and neurons can make up for 0 to "
                f"{most(neurons):,}: give another attention_ratio, or leave it out"
            )

    def _check_shares(self, anatomy: Anatomy) -> None:
        """Refuse a budget that the allocation cannot share, before it measures anything."""
        allocation, blocks = self.effective_allocation, self.blocks(anatomy)
        importance = [1.0] * len(blocks)
        if allocation.evidence is None:
            indices = [block.index for block in blocks]
            importance = allocation.known_importance(indices, len(anatomy.blocks))
        allocation.shares(self.budget(anatomy), [self.size(b) for b in blocks], importance)

    # --- what is decided ---

    def decide(
        self,
        blocks: Sequence[Block],
        scores: Scores,
        shares: Mapping[int, float],
        budget: float,
    ) -> dict[int, Decision]:
        """Keep the highest scores of each kind, as many as the allocation leaves."""
        decisions = {block.index: Decision() for block in blocks}
        pools = self.pools(blocks)
        removed = self._removed(pools, scores, shares, budget)
        for pool, count in zip(pools, removed, strict=True):
            kept_U = keep_units(scores[pool.block][pool.kind], count)
            decisions[pool.block].kept[pool.kind] = kept_U
        return decisions

    def _removed(
        self, pools: Sequence[Pool], scores: Scores, shares: Mapping[int, float], budget: float
    ) -> list[int]:
        """How many units of each pool go."""
        target = budget * sum(pool.parameters for pool in pools)
        if self.attention_ratio is None:
            return self._share(pools, scores, shares, budget, target)
        counts: dict[tuple[int, str], int] = {}
        for kind in self.kinds:
            members = [pool for pool in pools if pool.kind == kind]
            total = sum(pool.parameters for pool in members)
            goal = self.attention_ratio * total if kind == "group" else target
            for pool, count in zip(
                members, self._share(members, scores, shares, budget, goal), strict=True
            ):
                counts[pool.block, kind] = count
                target -= count * pool.size
        return [counts[pool.block, pool.kind] for pool in pools]

    def _share(
        self,
        pools: Sequence[Pool],
        scores: Scores,
        shares: Mapping[int, float],
        budget: float,
        target: float,
    ) -> list[int]:
        total = sum(pool.parameters for pool in pools)
        if not total:
            return []
        scale = target / total / budget  # for a part of the kinds the budget is another one
        return self.effective_allocation.unit_counts(
            pools,
            [scores[pool.block][pool.kind] for pool in pools],
            [shares[pool.block] * scale for pool in pools],
            target,
        )

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """A block alone; see `decide`."""
        table = {block.index: scores}
        return self.decide([block], table, {block.index: share}, share)[block.index]
