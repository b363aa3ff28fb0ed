"""What the pipeline asks of a pruning method. Tensors and anatomy only: no Lightning in here.

Axes: O output features, I input features, U units of one block.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from lightning_prune.allocation import Allocation, Uniform
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.evidence import GradientEvidence, InputEvidence
from lightning_prune.evidence.objective import NextToken, Objective
from lightning_prune.plan import Plan
from lightning_prune.repair import NoRepair, Repair

__all__ = ["Decision", "Method", "Scores", "check_finite"]


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


class Method(ABC):
    """A pruning method: which evidence it needs, how it scores, what it selects.

    The constructor only stores its arguments, under their own names, and checks their ranges;
    whatever depends on the model is checked in `check`, before calibration starts.

    Attributes:
        evidence: what the sweep collects: a class of `InputEvidence` for one pass forward, of
            `GradientEvidence` for gradients, None for methods that look at weights only.
        survey: decide only after every block was scored on the dense model, in `decide`.
            Otherwise each block is decided on and changed before the next one is looked at, in
            `prune_block`.
        order: with forward evidence and no survey: which changes it sees; see `forward_sweep`.
        objectives: with gradient evidence: of what the gradients are taken, one sweep each.
        influence: in place of evidence: how the influence of blocks is measured, by a name in
            `MEASURES`; `score` is not asked then, and the score of a block is one number, of kind
            "block".
        part: with influence: of what of the block.
        windows: with influence by removal: on how many calibration windows; 0: on all.
        allocation: shares the budget among blocks; None: the same share for all.
        plan: a plan to apply in place of calibrating.
        keep_scores: leave the scores in the plan.
        offload: keep hidden states and evidence on the CPU between blocks.
    """

    evidence: type[InputEvidence] | type[GradientEvidence] | None = None
    survey: bool = False
    order: Literal["block", "linear", "none"] = "block"
    objectives: Sequence[Objective] = (NextToken(),)
    influence: str | None = None
    part: Literal["block", "attention", "mlp"] = "block"
    windows: int = 0

    allocation: Allocation | None
    plan: Plan | str | Path | None
    keep_scores: bool
    offload: bool

    @abstractmethod
    def budget(self, anatomy: Anatomy) -> float:
        """The fraction to remove overall, of what `size` counts."""

    def span(self, anatomy: Anatomy) -> int:
        """With influence: of how many consecutive blocks, from each on, it is measured."""
        return 1

    @property
    def effective_allocation(self) -> Allocation:
        """The allocation given, or the method's own."""
        return self.allocation or Uniform()

    @property
    def effective_repair(self) -> Repair:
        """With a survey: what is done, after the decision, about what was removed."""
        return NoRepair()

    @property
    def calibrates(self) -> bool:
        """Whether calibration batches are needed."""
        if self.plan is not None:
            return False
        asks = (self.evidence, self.influence, self.effective_repair.evidence)
        return self.effective_allocation.calibrates or any(a is not None for a in asks)

    def size(self, block: Block) -> int:
        """How much a block, or those of its sites that come with it, has of what can be removed."""
        return sum(site.module.weight.numel() for site in block.sites)

    @abstractmethod
    def blocks(self, anatomy: Anatomy) -> list[Block]:
        """The blocks that the method works on, with the sites that it works on in each."""

    def outside(self, anatomy: Anatomy) -> dict[str, torch.Tensor]:
        """Masks of weights outside the blocks, by name; applied before anything runs."""
        return {}

    @abstractmethod
    def check(self, anatomy: Anatomy) -> None:
        """Refuse what cannot be done with this model, before anything expensive.

        Raises:
            ValueError: says what was asked, what the model has, and what to do.
        """

    @abstractmethod
    def score(self, block: Block, evidence: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Score what is decided together: a weight by its name (O, I), or a kind of unit (U,)."""

    @abstractmethod
    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        """Decide what a block keeps when the fraction `share` of it must go."""

    def combine(self, found: Sequence[Scores]) -> Scores:
        """With several objectives: one table of scores from those of each.

        Args:
            found: for each objective, by block index, what `score` made.
        """
        assert len(found) == 1, "a method with several objectives says how to combine them"
        return found[0]

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

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, of this class and of those that it passes on to."""
        return {name: getattr(self, name) for name in self._defaults()}

    def __repr__(self) -> str:
        """The call that makes this method again, without arguments left at their defaults."""
        defaults = self._defaults()
        said = [f"{k}={v!r}" for k, v in self.arguments.items() if v != defaults[k]]
        return f"{type(self).__name__}({', '.join(said)})"

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        defaults: dict[str, Any] = {}
        for base in cls.__mro__:
            if issubclass(base, Method) and "__init__" in vars(base):
                for name, parameter in inspect.signature(base).parameters.items():
                    if parameter.kind is not parameter.VAR_KEYWORD:
                        defaults.setdefault(name, parameter.default)
        return defaults


def check_finite(block: Block, found: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse numbers from which nothing can be decided.

    Raises:
        ValueError: some are NaN or infinite.
    """
    for name, tensor in found.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"{what} of {name} in {block.name} are not finite: the activations or gradients "
                "overflow. Load the model in bfloat16 or float32, and check that it answers well "
                "before pruning."
            )
