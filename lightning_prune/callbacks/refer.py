"""ReFer: what the size of the features feels of a weight, |w · ∂P/∂w|.

Source: Kobayashi et al., arXiv 2607.08027, and its code, where the score also goes by FO. P is the
sum over Linears of a norm of their outputs for one sequence: "frobenius", the Frobenius norm of the
output (tokens, features); "nuclear", its mean singular value; "l1", the sum of its magnitudes; and
the mean of that over sequences. No labels are needed.
Needs one forward and backward pass over the calibration set on the dense model. "nuclear" also
needs all eigenvectors of one Gram matrix per output and sequence, which is several times the cost
of the passes, so it is not the default.

Differs from the authors' code. Its "SVD" flattens each output to one row, whose only singular value
is the Frobenius norm; the nuclear norm here is that of the output itself, and its gradient is taken
in the stable form U Vᵀ. It adds up the norms of all modules, containers, norms and the head too, so
that the residual stream counts many times (`modules="all"`). It looks at one sequence only; here
the gradient is that of the whole calibration set. Its scores are ratios of mean and deviation
(`aggregate="snr"`); here they are magnitudes of means, as in AFR.

Axes: U units of one block, O output, I input features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from lightning_prune.anatomy import Anatomy, Block, Site
from lightning_prune.callbacks.products import Aggregate, check_aggregation, score_units
from lightning_prune.callbacks.unit_pruning import UnitPruning
from lightning_prune.callbacks.weight_pruning import WeightPruning
from lightning_prune.evidence import GradientEvidence
from lightning_prune.evidence.objective import Feature, FeatureKind
from lightning_prune.selection import Scope

__all__ = ["ReFer", "WeightReFer"]


class ReFer(UnitPruning):
    """Remove the GQA groups and MLP neurons that the size of the features would miss least.

    ```python
    ReFer(ratio=0.2)
    ReFer(ratio=0.2, attention=False, modules="all", aggregate="snr")    # the authors' ReFer-SVD
    ReFer(ratio=0.2, attention=False, kind="l1", modules="all", aggregate="mean", trim=0.0)
    ```

    Args:
        ratio: as in `UnitPruning`.
        kind: of the features, "frobenius", "nuclear" or "l1".
        modules: whose outputs: "linear": those of the Linears inside blocks; "all": of every module
            of the model, as in the authors' code, which holds the logits of all tokens.
        aggregate: of the signed products in a unit, "mean_abs": the magnitude of the mean; "snr":
            that over the standard deviation; "mean": the mean itself, as in the authors' code of
            the L1 variant.
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
        kind: FeatureKind = "frobenius",
        modules: Literal["linear", "all"] = "linear",
        aggregate: Aggregate = "mean_abs",
        trim: float = 0.02,
        signed: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(ratio, **settings)
        check_aggregation(aggregate, trim)
        self.kind, self.modules, self.objectives = kind, modules, (Feature(kind, modules),)
        self.aggregate, self.trim, self.signed = aggregate, trim, signed

    def score(
        self, block: Block, evidence: Mapping[str, GradientEvidence]
    ) -> dict[str, torch.Tensor]:
        """Aggregate the products of every unit of every kind asked for."""
        return score_units(
            block, self.kinds_of(block), evidence, self.aggregate, self.trim, self.signed
        )


class WeightReFer(WeightPruning):
    """Zero the weights of lowest |w · ∂P/∂w|, compared across all blocks.

    ```python
    WeightReFer(sparsity=0.5)
    WeightReFer(sparsity=0.5, include="*.mlp.*", kind="l1", modules="all")   # the authors' code
    ```

    Args:
        sparsity: as in `WeightPruning`.
        pattern: as in `WeightPruning`.
        kind: of the features, "frobenius", "nuclear" or "l1".
        modules: whose outputs: "linear": those of the Linears inside blocks; "all": of every module
            of the model, as in the authors' code.
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
        **settings: Any,
    ) -> None:
        super().__init__(sparsity, pattern, **settings)
        self.kind, self.modules, self.objectives = kind, modules, (Feature(kind, modules),)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse the head too, which no feature depends on."""
        check_head(self)
        super().check(anatomy)

    def score_site(self, site: Site, evidence: GradientEvidence) -> torch.Tensor:
        """|w·g|."""
        return evidence.absolute_OI


def check_head(method: WeightPruning) -> None:
    """Refuse to prune the head by features.

    Raises:
        ValueError: head=True.
    """
    if method.head:
        raise ValueError(
            f"head=True: {type(method).__name__} scores weights by the features that they make, "
            "and those lie in front of the head. Leave it out."
        )
