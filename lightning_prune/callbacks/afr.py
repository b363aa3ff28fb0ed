"""AFR, adaptive feature retention: ReFer and SNIP together.

Source: Kobayashi et al., "Structured Pruning of Large Language Models via Power Transformation and
Sign-Preserving Score Aggregation with Adaptive Feature Retention", arXiv 2607.08027: ReFer keeps
what the model knew, SNIP what the text asks for. The scores of units are made as there: products
w·g are averaged with their signs after the outermost 2% are left out, and the magnitude is taken;
SNIP's scores are raised to a power; each of the two is standardised over the units of all blocks,
and they are added. Of single weights, the magnitudes of the products are standardised and added.
Needs two forward and backward passes over the calibration set on the dense model, one for each of
the two, and for kind="nuclear" what `ReFer` needs.

Differs from the authors' code as `ReFer` and `SNIP` do. Its standardisation is over the neurons of
all blocks at once, as here, and of GQA groups it has none: these are standardised among themselves.
Its trimming leaves nothing of a unit with fewer than 50 elements; here it leaves all. Its power is
2 in the later code, and 1 in the earlier.

Axes: U units of one block, O output, I input features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from lightning_prune.anatomy import Anatomy, Block, Site
from lightning_prune.callbacks.products import check_aggregation, score_units
from lightning_prune.callbacks.refer import check_head
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.callbacks.weight_pruning import WeightPruning
from lightning_prune.evidence import GradientEvidence
from lightning_prune.evidence.objective import Feature, FeatureKind, Labels, NextToken
from lightning_prune.method import Scores
from lightning_prune.selection import Scope, standardised

__all__ = ["AFR", "WeightAFR"]


class AFR(UnitPruning):
    """Remove the GQA groups and MLP neurons that neither the features nor the loss would miss.

    ```python
    AFR(ratio=0.2)
    AFR(ratio=0.2, attention=False, modules="all", labels="reference", trim=0.0, power=1.0)
    ```

    Args:
        ratio: as in `UnitPruning`.
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
        settings: the arguments of `UnitPruning`.

    Raises:
        ValueError: an argument is unknown or out of range.
    """

    evidence = GradientEvidence

    def __init__(
        self,
        ratio: float | None = None,
        kind: FeatureKind = "frobenius",
        modules: Literal["linear", "all"] = "linear",
        labels: Labels = "all",
        aggregate: Literal["mean_abs", "snr"] = "mean_abs",
        trim: float = 0.02,
        signed: bool = True,
        power: float = 2.0,
        **settings: Any,
    ) -> None:
        super().__init__(ratio, **settings)
        check_aggregation(aggregate, trim, ("mean_abs", "snr"))
        if not 0 < power < math.inf:
            raise ValueError(f"power={power} of SNIP's scores must be positive; 1 leaves them")
        self.kind, self.modules, self.labels = kind, modules, labels
        self.objectives = (Feature(kind, modules), NextToken(labels))
        self.aggregate, self.trim, self.signed, self.power = aggregate, trim, signed, power

    def score(
        self, block: Block, evidence: Mapping[str, GradientEvidence]
    ) -> dict[str, torch.Tensor]:
        """Aggregate the products of every unit of every kind asked for, by one objective."""
        return score_units(
            block, self.kinds_of(block), evidence, self.aggregate, self.trim, self.signed
        )

    def combine(self, found: Sequence[Scores]) -> Scores:
        """Standardise ReFer and SNIP, each over the units of a kind in all blocks, and add them."""
        feature, loss = found
        combined: dict[int, dict[str, torch.Tensor]] = {index: {} for index in feature}
        for kind in self.kinds:
            blocks = [index for index, scores in feature.items() if kind in scores]
            refer = standardised([feature[index][kind] for index in blocks])
            snip = standardised([loss[index][kind].pow(self.power) for index in blocks])
            for index, refer_U, snip_U in zip(blocks, refer, snip, strict=True):
                combined[index][kind] = refer_U + snip_U
        return combined


class WeightAFR(WeightPruning):
    """Zero the weights that neither the features nor the loss would miss, across all blocks.

    ```python
    WeightAFR(sparsity=0.5)
    WeightAFR(sparsity=0.5, include="*.mlp.*", modules="all", labels="reference")
    ```

    Args:
        sparsity: as in `WeightPruning`.
        pattern: as in `WeightPruning`.
        kind: of the features, "frobenius", "nuclear" or "l1".
        modules: whose outputs: "linear": those of the Linears inside blocks; "all": of every module
            of the model, as in the authors' code.
        labels: of SNIP: "all": every next token; "reference": the last token of each sequence
            alone, not shifted, as in the authors' code.
        settings: the arguments of `WeightPruning`.

    Raises:
        ValueError: an argument is unknown, or head=True: features lie in front of the head.
    """

    evidence = GradientEvidence
    survey = True
    own_scope: Scope = "global"

    def __init__(
        self,
        sparsity: float | None = None,
        pattern: str | int | None = None,
        kind: FeatureKind = "frobenius",
        modules: Literal["linear", "all"] = "linear",
        labels: Labels = "all",
        **settings: Any,
    ) -> None:
        super().__init__(sparsity, pattern, **settings)
        self.kind, self.modules, self.labels = kind, modules, labels
        self.objectives = (Feature(kind, modules), NextToken(labels))

    def check(self, anatomy: Anatomy) -> None:
        """Refuse the head too, which no feature depends on."""
        check_head(self)
        super().check(anatomy)

    def score_site(self, site: Site, evidence: GradientEvidence) -> torch.Tensor:
        """|w·g| by one objective."""
        return evidence.absolute_OI

    def combine(self, found: Sequence[Scores]) -> Scores:
        """Standardise ReFer and SNIP, each over all weights, and add them."""
        tables = [
            standardised([score for scores in one.values() for score in scores.values()])
            for one in found
        ]
        both = iter([refer_OI.add_(snip_OI) for refer_OI, snip_OI in zip(*tables, strict=True)])
        return {index: {name: next(both) for name in scores} for index, scores in found[0].items()}
