"""FLAP: what fluctuates least can be replaced by its mean.

Source: An et al., "Fluctuation-based Adaptive Structured Pruning for Large Language Models",
arXiv 2312.11983. Its metrics, for every input feature j of o_proj and down_proj:

    WIFV = Var(X_j) · Σ_i W_ij²     IFV = Var(X_j)     WIFN = mean over i of |W_ij| · ||X_j||_2

WIFV is the squared error of the output if feature j is held at its mean, which a bias can do.
Needs mean, variance and norm of every input feature: one forward pass.

Differs from FLAP's code: GQA groups, and heads of any size (theirs: query heads of 128 features
with keys and values of their own); the variance (theirs takes the new mean for the old one in its
running update, so that the first sequence does not count, and the early ones too little:
`fluctuation="reference"`); attention is scored as the MLP is (theirs squares the metric of o_proj
alone, which is no squared error any more: `square_attention=True`); and what `GlobalStandardised`
says of weights and budget.

Axes: I input features, U units of one block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from lightning_prune import distributed
from lightning_prune.allocation import Allocation, GlobalStandardised
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import AliasedMoments, InputMoments, Moments
from lightning_prune.methods.units import UnitPruning
from lightning_prune.scores.flap import Metric, feature_score
from lightning_prune.scores.wanda import unit_mean
from lightning_prune.selection import standardised

__all__ = ["FLAP"]


class FLAP(PruningCallback, UnitPruning):
    """Remove the units whose inputs fluctuate least, compared across the whole model.

    The metric of every input feature of o_proj and down_proj is standardised over the features of
    its site. A unit has the mean over its features, and the lowest units of all blocks go, until
    the parameters that they hold make up the budget.

    ```python
    FLAP(ratio=0.2, repair=Bias())  # as in the paper, whose structure is AL-AM
    FLAP(ratio=0.2, allocation=Uniform())  # UL-UM
    FLAP(ratio=0.2, attention_ratio=0.1)  # AL-MM
    FLAP(ratio=0.2, attention_ratio=0.1, allocation=Uniform())  # UL-MM
    ```

    Args:
        metric: "WIFV", "WIFN" or "IFV".
        fluctuation: "variance", or "reference" for what FLAP's code computes in its place, which
            depends on the order of the calibration sequences.
        square_attention: square the metric of o_proj, as FLAP's code does.

    Raises:
        ValueError: an unknown metric or fluctuation; "reference" in several processes.
    """

    metric: Metric = "WIFV"
    fluctuation: Literal["variance", "reference"] = "variance"
    square_attention: bool = False
    allocation: Allocation = GlobalStandardised(standardise=False)

    @property
    def evidence(self) -> InputMoments:
        """The moments of every input."""
        return AliasedMoments() if self.fluctuation == "reference" else InputMoments()

    def check(self, anatomy: Anatomy) -> None:
        """Refuse what depends on the order of sequences where there is none."""
        super().check(anatomy)
        if self.fluctuation == "reference" and distributed.world_size() > 1:
            raise ValueError(
                "fluctuation='reference' depends on the order of the calibration sequences, and "
                f"{distributed.world_size()} processes share them; use one process or 'variance'"
            )

    def score(self, block: Block, evidence: Mapping[str, Moments]) -> dict[str, torch.Tensor]:
        """The mean of each unit's standardised features."""
        scores = {}
        for kind in self.kinds_of(block):
            site = block.reader(kind).site
            weight_OI = site.module.weight
            moments = evidence[site.table.reads]
            score_I = feature_score(self.metric, weight_OI, moments)
            if kind == "group" and self.square_attention:
                score_I = score_I.square()
            scores[kind] = unit_mean(block, kind, standardised([score_I])[0])
        return scores
