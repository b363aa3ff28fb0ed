"""What the pipeline asks of a pruning method. Tensors and anatomy only: no Lightning in here.

Axes: O output features, I input features, U units of one block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch

from lightning_prune.allocation import Allocation, Uniform
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.checks import Configured
from lightning_prune.evidence import Evidence, Propagate
from lightning_prune.plan import Plan
from lightning_prune.repair import BlockFit, Repair

__all__ = ["Decision", "Method", "Scores", "Solving", "check_finite"]


Scores = Mapping[int, Mapping[str, torch.Tensor]]
"""By block index, what `Method.score` makes of a block."""


@dataclass
class Decision:
    """What one block keeps.

    Attributes:
        masks: by weight name, True = kept, (O, I).
        kept: by kind of unit, the sorted indices that stay.
        weights: by name, the corrected weight (O, I), or bias (O,), where the method changes what
            stays.
    """

    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    kept: dict[str, torch.Tensor] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    agreed: bool = False


class Solving(NamedTuple):
    """What it takes to choose and correct the weights of all sites that share one input.

    Attributes:
        per_weight: bytes at most, for each weight.
        per_square: bytes at most, for each entry of a Gram matrix, beyond the evidence.
        products: how often the weights are multiplied by such a matrix.
        inversions: how often such a matrix is inverted.
    """

    per_weight: float
    per_square: float
    products: float
    inversions: float


class Method(Configured, ABC):
    """A pruning method: which evidence it needs, how it scores, what it selects.

    Its arguments are its annotated fields. `__post_init__` checks their ranges; whatever depends on
    the model is checked in `check`, before calibration starts.

    Args:
        plan: a saved plan, or its folder, to apply; nothing is calibrated then.
        layer_start: first block to prune.
        layer_end: block to stop before; None: the last block is pruned too.
        keep_scores: leave the scores in the plan.
        offload: keep the calibration set's hidden states between blocks, and scores of weights that
            wait for others, in the CPU's memory, or on the "disk" (in TMPDIR), not on the device.
        block_fit: train what is left of each block to do what the dense model does; None: do not.

    Attributes:
        cuts: whether it takes units or blocks out of the model.
        divides_scoring: whether to score a block takes longer than to send its scores, so that
            processes score one each.
        undoable: whether the plan keeps the values that masks remove, so that they can be put back;
            of methods with a survey that remove little.
        score_bytes: what scoring and choosing take at most, for each weight of a block, beside the
            evidence; for plans of what a run will take.
        score_square: the same, for each entry of the Gram matrix of its widest input.
        solving: the same of a method that chooses and corrects in one act; None: it does not.
    """

    cuts: ClassVar[bool] = False
    divides_scoring: ClassVar[bool] = False
    undoable: ClassVar[bool] = False
    score_bytes: ClassVar[float] = 4.0
    score_square: ClassVar[float] = 0.0
    solving: ClassVar[Solving | None] = None

    plan: Plan | str | Path | None = None
    layer_start: int = 0
    layer_end: int | None = None
    keep_scores: bool = False
    offload: bool | Literal["disk"] = False
    block_fit: BlockFit | None = None

    # --- what it needs ---

    @property
    def evidence(self) -> Evidence | Sequence[Evidence] | None:
        """What is collected of every block: one kind, several (see `combine`), or nothing.

        A class attribute as a rule: `evidence = InputNorm()`.
        """
        return None

    def requests(self, blocks: Sequence[Block] = ()) -> tuple[Evidence, ...]:
        """The kinds of evidence, one after the other, for the blocks that the method works on."""
        if self.evidence is None:
            return ()
        return (self.evidence,) if isinstance(self.evidence, Evidence) else tuple(self.evidence)

    @property
    def survey(self) -> bool:
        """Whether all blocks are scored on the dense model before `decide` decides on all.

        Otherwise each is decided on, by `prune_block`, and changed before the next is looked at.
        """
        return True

    @property
    def propagation(self) -> Propagate:
        """Without a survey: which of the changes its evidence sees; see `WeightPruning`."""
        return "none"

    @property
    def effective_allocation(self) -> Allocation:
        """What shares the budget among blocks."""
        return Uniform()

    @property
    def effective_repair(self) -> Repair | None:
        """With a survey: what is done, after the decision, about what was removed."""
        return None

    @property
    def calibrates(self) -> bool:
        """Whether calibration batches are needed."""
        repair = self.effective_repair
        requests = (
            *self.requests(),
            self.effective_allocation.evidence,
            repair and repair.evidence,
        )
        asked = self.block_fit is not None or any(evidence is not None for evidence in requests)
        return self.plan is None and asked

    @property
    def needs_loss(self) -> bool:
        """Whether its evidence, or its allocation's, is made of a loss, which takes a head."""
        requests = (*self.requests(), self.effective_allocation.evidence)
        return any(
            evidence is not None and evidence.sweep in ("backward", "removal")
            for evidence in requests
        )

    # --- what it is about ---

    @abstractmethod
    def budget(self, anatomy: Anatomy) -> float:
        """The fraction to remove overall, of what `size` counts."""

    def size(self, block: Block) -> int:
        """How much a block, or those of its sites that come with it, has of what can be removed."""
        return sum(site.module.weight.numel() for site in block.sites)

    def blocks(self, anatomy: Anatomy) -> list[Block]:
        """The blocks that the method works on, with the sites that it works on in each.

        Raises:
            ValueError: the model has no such blocks.
        """
        total = len(anatomy.blocks)
        end = total if self.layer_end is None else self.layer_end
        if not 0 <= self.layer_start < end <= total:
            raise ValueError(
                f"layer_start={self.layer_start}, layer_end={self.layer_end} is no range of "
                f"blocks: the model has {total}, and 0 <= layer_start < layer_end <= {total}"
            )
        chosen = anatomy.blocks[self.layer_start : end]
        # The attention or the MLP of a block may have been taken out.
        parts = [b.part(s for s in b.sites if s.module.weight.numel()) for b in chosen]
        return [part for part in parts if part.sites]

    def outside(self, anatomy: Anatomy) -> dict[str, torch.Tensor]:
        """Masks of weights outside the blocks, by name; applied before anything runs."""
        return {}

    @abstractmethod
    def check(self, anatomy: Anatomy) -> None:
        """Refuse what cannot be done with this model, before anything expensive.

        Raises:
            ValueError: says what was asked, what the model has, and what to do; or a loss is
                needed, and the model has no head that says what its family's models say.
        """
        if self.needs_loss:
            _ = anatomy.head

    # --- what it does ---

    @abstractmethod
    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Score what is decided together: a weight by its name (O, I), or a kind of unit (U,).

        Args:
            block: on the device.
            evidence: what was collected of it, by the names that the kind of evidence says.
        """

    def combine(self, tables: Sequence[Scores]) -> Scores:
        """With several kinds of evidence: one table of scores from those of each.

        Args:
            tables: for each kind, by block index, what `score` made of it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} asks for several kinds of evidence and does not combine them"
        )

    @abstractmethod
    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """Decide what a block keeps when the fraction `share` of it must go."""

    def decide(
        self,
        blocks: Sequence[Block],
        scores: Scores,
        shares: Mapping[int, float],
        budget: float,
    ) -> dict[int, Decision]:
        """After a survey: decide on all blocks, each for itself.

        A method that compares across blocks overrides this.

        Args:
            blocks: the blocks that the method works on.
            scores: by block index, what `score` made.
            shares: by block index, the fraction that the allocation gives it to remove.
            budget: the fraction to remove overall.
        """
        return {b.index: self.select(b, scores[b.index], shares[b.index]) for b in blocks}

    def prune_block(
        self, block: Block, evidence: Mapping[str, Any], share: float
    ) -> tuple[Decision, dict[str, torch.Tensor]]:
        """Without a survey: decide on one block, or on those of its sites that come with it.

        A method that corrects the weights that stay while it chooses overrides this, and leaves
        them in the decision; it does not change the block itself.
        """
        scores = self.score(block, evidence)
        return self.select(block, scores, share), scores


def check_finite(block: Block, numbers: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse numbers from which nothing can be decided.

    Raises:
        ValueError: some are NaN or infinite.
    """
    for name, tensor in numbers.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"{what} of {name} in {block.name} are not finite: the activations or gradients "
                "overflow. Load the model in bfloat16 or float32, and check that it answers well "
                "before pruning."
            )
