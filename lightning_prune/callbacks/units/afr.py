"""AFR, adaptive feature retention: ReFer and SNIP together.

Source: Kobayashi et al., "Structured Pruning of Large Language Models via Power Transformation and
Sign-Preserving Score Aggregation with Adaptive Feature Retention", arXiv 2607.08027: ReFer keeps
what the model knew, SNIP what the text asks for. The scores of units are made as there: products
w·g are averaged with their signs after the outermost 2% are left out, and the magnitude is taken;
SNIP's scores are raised to a power; each of the two is standardised over the units of all blocks,
and they are added.
Needs two forward and backward passes over the calibration set on the dense model, one for each of
the two, and for kind="nuclear" what `ReFer` needs.

Differs from the authors' code as `ReFer` and `SNIP` do. Its standardisation is over the neurons of
all blocks at once, as here, and of GQA groups it has none: these are standardised among themselves.
Its trimming leaves nothing of a unit with fewer than 50 elements; here it leaves all. Its power is
2 in the later code, and 1 in the earlier.

Axes: U units of one block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from lightning_prune.anatomy import Labels
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Feature, Gradients, TaskLoss
from lightning_prune.evidence.objective import FeatureKind, Modules
from lightning_prune.methods.base import Scores
from lightning_prune.methods.products import ProductPruning
from lightning_prune.selection import standardised

__all__ = ["AFR"]


class AFR(PruningCallback, ProductPruning):
    """Remove the GQA groups and MLP neurons that neither the features nor the loss would miss.

    ```python
    AFR(ratio=0.2)
    AFR(ratio=0.2, attention=False, modules="all", labels="reference", trim=0.0, power=1.0)
    ```

    Args:
        kind: of the features, "frobenius", "nuclear" or "l1".
        modules: whose outputs: "linear": those of the Linears inside blocks; "all": of every module
            of the model, as in the authors' code, which holds the logits of all tokens.
        labels: of SNIP: "all": every next token; "reference": the last token of each sequence
            alone, not shifted, as in the authors' code.
        aggregate: of the signed products in a unit, "mean_abs": the magnitude of their mean; "snr":
            that over their standard deviation.
        trim: fraction of the products that is left out at either end.
        signed: False: of the magnitudes of the products.
        power: to which SNIP's scores are raised before they are standardised.

    Raises:
        ValueError: an argument is unknown or out of range.
    """

    kind: FeatureKind = "frobenius"
    modules: Modules = "linear"
    labels: Labels = "all"
    aggregate: Literal["mean_abs", "snr"] = "mean_abs"
    trim: float = 0.02
    power: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("power", 0 < self.power < math.inf, "it is above 0; 1 leaves SNIP's scores")

    @property
    def evidence(self) -> tuple[Gradients, Gradients]:
        """Gradients of the size of the features, and of the loss."""
        feature = Feature(kind=self.kind, modules=self.modules)
        return Gradients(objective=feature), Gradients(objective=TaskLoss(labels=self.labels))

    def combine(self, tables: Sequence[Scores]) -> Scores:
        """Standardise ReFer and SNIP, each over the units of a kind in all blocks, and add them."""
        feature, loss = tables
        combined: dict[int, dict[str, torch.Tensor]] = {index: {} for index in feature}
        for kind in self.kinds:
            blocks = [index for index, scores in feature.items() if kind in scores]
            refer = standardised([feature[index][kind] for index in blocks])
            snip = standardised([loss[index][kind].pow(self.power) for index in blocks])
            for index, refer_U, snip_U in zip(blocks, refer, snip, strict=True):
                combined[index][kind] = refer_U + snip_U
        return combined
