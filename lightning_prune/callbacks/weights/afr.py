"""AFR for single weights: ReFer and SNIP, each brought to one scale, together.

Source: Kobayashi et al., arXiv 2607.08027, and its code: the magnitudes of the products w·g of both
are standardised over all weights and added.
Needs two forward and backward passes over the calibration set on the dense model.
Differs from the authors' code as `ReFer` and `SNIP` do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_prune.anatomy import Labels, Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Feature, Gradients, TaskLoss
from lightning_prune.evidence.objective import FeatureKind, Modules
from lightning_prune.methods.base import Scores
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.selection import standardised

__all__ = ["WeightAFR"]


class WeightAFR(PruningCallback, WeightPruning):
    """Zero the weights that neither the features nor the loss would miss, across all blocks.

    ```python
    WeightAFR(sparsity=0.5)
    WeightAFR(sparsity=0.5, include="*.mlp.*", modules="all", labels="reference")
    ```

    Args:
        kind: of the features, "frobenius", "nuclear" or "l1".
        modules: whose outputs: "linear": those of the Linears inside blocks; "all": of every module
            of the model, as in the authors' code.
        labels: of SNIP: "all": every next token; "reference": the last token of each sequence
            alone, not shifted, as in the authors' code.

    Raises:
        ValueError: an argument is unknown, or head=True: features lie in front of the head.
    """

    own_scope = "global"

    kind: FeatureKind = "frobenius"
    modules: Modules = "linear"
    labels: Labels = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("head", not self.head, "it is False: features lie in front of the head")

    @property
    def evidence(self) -> tuple[Gradients, Gradients]:
        """Gradients of the size of the features, and of the loss."""
        feature = Feature(kind=self.kind, modules=self.modules)
        return Gradients(objective=feature), Gradients(objective=TaskLoss(labels=self.labels))

    def score_site(self, site: Site, evidence: Gradients) -> torch.Tensor:
        """|w·g| by one objective."""
        return evidence.absolute_OI

    def combine(self, tables: Sequence[Scores]) -> Scores:
        """Standardise ReFer and SNIP, each over all weights, and add them."""
        scales = [
            standardised([score for scores in table.values() for score in scores.values()])
            for table in tables
        ]
        both = iter([refer_OI.add_(snip_OI) for refer_OI, snip_OI in zip(*scales, strict=True)])
        return {index: {name: next(both) for name in scores} for index, scores in tables[0].items()}
