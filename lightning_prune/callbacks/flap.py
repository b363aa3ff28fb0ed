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

Axes: O output features, I input features, U units of one block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch

from lightning_prune import distributed
from lightning_prune.allocation import Allocation, GlobalStandardised
from lightning_prune.anatomy import Anatomy, Block
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.callbacks.wanda_sp import column_score, unit_mean
from lightning_prune.evidence import AliasedMoments, InputMoments, Moments, moved
from lightning_prune.selection import standardised

__all__ = ["FLAP", "Metric", "feature_score"]

Metric = Literal["WIFV", "WIFN", "IFV"]
Fluctuation = Literal["variance", "reference"]


def feature_score(metric: Metric, weight_OI: torch.Tensor, moments: Moments) -> torch.Tensor:
    """One of FLAP's metrics of every input feature, fp32, (I,).

    Args:
        metric: which one.
        weight_OI: the weight that reads the features.
        moments: of the features.
    """
    if metric == "WIFN":
        return column_score(weight_OI, moments.norm_I)
    if metric == "IFV":
        return moments.variance_I
    return moments.variance_I * weight_OI.detach().float().square().sum(dim=0)


class FLAP(UnitPruning):
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
        ratio: as in `UnitPruning`.
        metric: "WIFV", "WIFN" or "IFV".
        fluctuation: "variance", or "reference" for what FLAP's code computes in its place, which
            depends on the order of the calibration sequences.
        square_attention: square the metric of o_proj, as FLAP's code does.
        settings: the arguments of `UnitPruning`.

    Raises:
        ValueError: an unknown metric or fluctuation; "reference" in several processes.
    """

    def __init__(
        self,
        ratio: float | None = None,
        metric: Metric = "WIFV",
        fluctuation: Fluctuation = "variance",
        square_attention: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(ratio, **settings)
        if metric not in get_args(Metric) or fluctuation not in get_args(Fluctuation):
            raise ValueError(
                f"metric={metric!r}, fluctuation={fluctuation!r}: FLAP has the metrics "
                f"{', '.join(get_args(Metric))}, and the fluctuation is 'variance' or 'reference'"
            )
        self.metric, self.fluctuation = metric, fluctuation
        self.square_attention = square_attention

    @property
    def evidence(self) -> type[InputMoments]:  # type: ignore[override]
        """The moments of every input."""
        return AliasedMoments if self.fluctuation == "reference" else InputMoments

    @property
    def own_allocation(self) -> Allocation:
        """All units of all blocks in one line; the scores are on a scale already."""
        return GlobalStandardised(standardise=False)

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
            moments = moved(evidence[site.table.reads], weight_OI.device)
            score_I = feature_score(self.metric, weight_OI, moments)
            if kind == "group" and self.square_attention:
                score_I = score_I.square()
            scores[kind] = unit_mean(block, kind, standardised([score_I])[0])
        return scores
