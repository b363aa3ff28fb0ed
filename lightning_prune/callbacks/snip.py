"""SNIP: what the loss feels of a weight, to first order, |w · ∂L/∂w|.

Source: Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity",
arXiv 1810.02340, equation 6; for units as Kobayashi et al., arXiv 2607.08027, aggregate it: the
signed products are averaged over each unit before the magnitude is taken.
Needs one forward and backward pass over the calibration set on the dense model.

Differs from the authors' code of the structured variant. Its loss is of one token a sequence, the
last, against itself and not the next one, whose answer the model has read already
(`labels="reference"`); here it is the cross entropy of every next token. Its score is the mean
without magnitude, which keeps what pushes the loss up and removes what pulls it down as far
(`aggregate="mean"`). It looks at one sequence only, or adds up the scores of each; here the
gradient is that of the whole calibration set.

Axes: U units of one block, O output, I input features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lightning_prune.anatomy import Block, Site
from lightning_prune.callbacks.products import Aggregate, check_aggregation, score_units
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.callbacks.weight_pruning import WeightPruning
from lightning_prune.evidence import GradientEvidence
from lightning_prune.evidence.objective import Labels, NextToken
from lightning_prune.selection import Scope

__all__ = ["SNIP", "WeightSNIP"]


class SNIP(UnitPruning):
    """Remove the GQA groups and MLP neurons whose products w·g of the loss are small on average.

    ```python
    SNIP(ratio=0.2)
    SNIP(ratio=0.2, attention=False, labels="reference", aggregate="mean")   # the authors' code
    ```

    Args:
        ratio: as in `UnitPruning`.
        labels: "all": every next token; "reference": the last token of each sequence alone, not
            shifted, as in the authors' code.
        aggregate: of the signed products in a unit, "mean_abs": the magnitude of the mean; "snr":
            that over the standard deviation; "mean": the mean itself, as in the authors' code.
        trim: fraction of the products that is left out at either end.
        signed: False: of the magnitudes of the products.
        settings: the arguments of `UnitPruning`.

    Raises:
        ValueError: an argument is unknown or out of range.
    """

    evidence = GradientEvidence

    def __init__(
        self,
        ratio: float | None = None,
        labels: Labels = "all",
        aggregate: Aggregate = "mean_abs",
        trim: float = 0.0,
        signed: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(ratio, **settings)
        check_aggregation(aggregate, trim)
        self.labels, self.objectives = labels, (NextToken(labels),)
        self.aggregate, self.trim, self.signed = aggregate, trim, signed

    def score(
        self, block: Block, evidence: Mapping[str, GradientEvidence]
    ) -> dict[str, torch.Tensor]:
        """Aggregate the products of every unit of every kind asked for."""
        return score_units(
            block, self.kinds_of(block), evidence, self.aggregate, self.trim, self.signed
        )


class WeightSNIP(WeightPruning):
    """Zero the weights of lowest |w · ∂L/∂w|, compared across all blocks.

    ```python
    WeightSNIP(sparsity=0.5)
    WeightSNIP(sparsity=0.5, include="*.mlp.*", labels="reference")   # the authors' code
    ```

    Args:
        sparsity: as in `WeightPruning`.
        pattern: as in `WeightPruning`.
        labels: "all": every next token; "reference": the last token of each sequence alone, not
            shifted, as in the authors' code.
        settings: the arguments of `WeightPruning`.

    Raises:
        ValueError: labels are neither.
    """

    evidence = GradientEvidence
    survey = True
    own_scope: Scope = "global"

    def __init__(
        self,
        sparsity: float | None = None,
        pattern: str | int | None = None,
        labels: Labels = "all",
        **settings: Any,
    ) -> None:
        super().__init__(sparsity, pattern, **settings)
        self.labels, self.objectives = labels, (NextToken(labels),)

    def score_site(self, site: Site, evidence: GradientEvidence) -> torch.Tensor:
        """|w·g|."""
        return evidence.absolute_OI
