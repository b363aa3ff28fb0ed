"""Wanda's score summed up over whole units: what reads them, and how loud they are.

Source: the baseline of that name of An et al., "Fluctuation-based Adaptive Structured Pruning for
Large Language Models" (FLAP), arXiv 2312.11983: the mean over the rows i of |W_ij| · ||X_j||_2 (Sun
et al., arXiv 2306.11695, equation 1) for every input feature j of o_proj and down_proj.
Needs the norm of every input feature: one forward pass.
Differs from FLAP's code: a GQA group has all the columns of its query heads (theirs asks for one
key/value head per query head), the norms are those of the dense model (theirs prunes block by
block), and padding does not count.

Axes: I input features, U units of one block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lightning_prune.anatomy import Block
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import InputNorm
from lightning_prune.methods.units import UnitPruning
from lightning_prune.scores.wanda import column_score, unit_mean

__all__ = ["WandaSP"]


class WandaSP(PruningCallback, UnitPruning):
    """Remove the units whose columns have the lowest mean of |W_ij| · ||X_j||.

    ```python
    WandaSP(ratio=0.2)
    WandaSP(ratio=0.2, repair=None)
    ```
    """

    evidence = InputNorm()

    def score(self, block: Block, evidence: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The mean over each unit's columns."""
        scores = {}
        for kind in self.kinds_of(block):
            site = block.reader(kind).site
            norm_I = evidence[site.table.reads]
            scores[kind] = unit_mean(block, kind, column_score(site.module.weight, norm_I))
        return scores
