"""Wanda's score summed up over whole units: what reads them, and how loud they are.

Source: the baseline of that name of An et al., "Fluctuation-based Adaptive Structured Pruning for
Large Language Models" (FLAP), arXiv 2312.11983: the mean over the rows i of |W_ij| · ||X_j||_2 (Sun
et al., arXiv 2306.11695, equation 1) for every input feature j of o_proj and down_proj.
Needs the norm of every input feature: one forward pass.
Differs from FLAP's code: a GQA group has all the columns of its query heads (theirs asks for one
key/value head per query head), the norms are those of the dense model (theirs prunes block by
block), and padding does not count.

Axes: O output features, I input features, U units of one block, S features of one unit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lightning_prune.anatomy import Block
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.evidence import InputNorm

__all__ = ["WandaSP", "column_score", "unit_mean"]


def column_score(weight_OI: torch.Tensor, norm_I: torch.Tensor) -> torch.Tensor:
    """The mean over the rows of |W_ij| · ||X_j||_2 in fp32, (I,).

    Args:
        weight_OI: the weight.
        norm_I: L2 norm of every input feature over the calibration tokens.
    """
    return weight_OI.detach().abs().float().mean(dim=0) * norm_I


def unit_mean(block: Block, kind: str, score_I: torch.Tensor) -> torch.Tensor:
    """The mean over the features of every unit, (U,).

    Args:
        block: the block.
        kind: "group" or "neuron".
        score_I: one number for every input feature of the site that reads the units.
    """
    score_US1 = block.reader(kind).gather(score_I[None], block.units(kind))
    return score_US1.mean(dim=(1, 2))


class WandaSP(UnitPruning):
    """Remove the units whose columns have the lowest mean of |W_ij| · ||X_j||.

    ```python
    WandaSP(ratio=0.2)
    WandaSP(ratio=0.2, repair=NoRepair())
    ```

    Args:
        settings: the arguments of `UnitPruning`.
    """

    evidence = InputNorm

    def score(self, block: Block, evidence: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The mean over each unit's columns."""
        scores = {}
        for kind in self.kinds_of(block):
            site = block.reader(kind).site
            norm_I = evidence[site.table.reads].to(site.module.weight.device)
            scores[kind] = unit_mean(block, kind, column_score(site.module.weight, norm_I))
        return scores
