"""StructuredOBS: remove units greedily, each time the one that the others make up for best.

Source: Kurtic, Frantar, Alistarh, "ZipLM", arXiv 2302.04089, algorithm 1, and Ling et al.,
"SlimGPT", arXiv 2412.18110: the optimal brain surgeon for whole columns of the Linear that reads
the units (o_proj of GQA groups, down_proj of neurons), with the closed-form update of all other
columns after each removal.
Needs one forward pass and a Gram matrix for each of these Linears.
Differs: the order of removal is found on the dense model, down to the last unit, and is the score;
so it goes with every allocation. The weights that stay are those of the repair, which solves the
same least-squares problem on the inputs that the pruned model really has.

Axes: U units of one block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lightning_prune.anatomy import Block
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Gram
from lightning_prune.methods.base import check_finite
from lightning_prune.methods.units import UnitPruning
from lightning_prune.repair import greedy_removal

__all__ = ["StructuredOBS"]


STEPS = 256  # looks at the costs of a block's units; more removals than these go several at a time


class StructuredOBS(PruningCallback, UnitPruning):
    """Remove the units without which, one after the other, the layer behind them does best.

    The score of a unit is the relative squared error of the layer that reads it, when it and all
    that were removed before it are gone and the others have made up for them. So scores of all
    blocks are errors of one kind; `GlobalStandardised(standardise=False)` compares them as they
    are.

    ```python
    StructuredOBS(ratio=0.3)
    StructuredOBS(ratio=0.3, allocation=GlobalStandardised(standardise=False))
    ```

    Args:
        damping: share of the Gram matrix's mean diagonal added to its diagonal.
        per_step: units removed between two looks at what removals cost; None: one, or as many as
            it takes to be done in 256 steps.

    Raises:
        ValueError: an argument is out of range.
    """

    evidence = Gram()
    divides_scoring = True
    score_bytes = 7.0
    score_square = 21.0

    damping: float = 0.01
    per_step: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("damping", self.damping > 0, "it is above 0; 0.01 is usual")
        self.require("per_step", self.per_step is None or self.per_step >= 1, "it is 1 or more")

    def score(self, block: Block, evidence: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Remove all units of each kind, and note what it costs."""
        scores = {}
        for kind in self.kinds_of(block):
            reader = block.reader(kind)
            weight_OI = reader.site.module.weight.detach()
            gram_II = evidence[reader.site.table.reads]
            check_finite(block, {reader.site.table.reads: gram_II.diagonal()}, "squares")
            scores[kind] = greedy_removal(
                weight_OI,
                gram_II,
                reader.size,
                self.damping,
                self.per_step or -(-block.units(kind) // STEPS),
            )
        return scores
