"""ReFer for single weights: what the size of the features feels of each, |w · ∂P/∂w|.

Source: Kobayashi et al., arXiv 2607.08027, and its code; see `ReFer` for P.
Needs one forward and backward pass over the calibration set on the dense model.
Differs from the authors' code as `ReFer` does.
"""

from __future__ import annotations

import torch

from lightning_prune.anatomy import Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Feature, Gradients
from lightning_prune.evidence.objective import FeatureKind, Modules
from lightning_prune.methods.weights import WeightPruning

__all__ = ["WeightReFer"]


class WeightReFer(PruningCallback, WeightPruning):
    """Zero the weights of lowest |w · ∂P/∂w|, compared across all blocks.

    ```python
    WeightReFer(sparsity=0.5)
    WeightReFer(sparsity=0.5, include="*.mlp.*", kind="l1", modules="all")   # the authors' code
    ```

    Args:
        kind: of the features, "frobenius", "nuclear" or "l1".
        modules: whose outputs: "linear": those of the Linears inside blocks; "all": of every module
            of the model, as in the authors' code.

    Raises:
        ValueError: an argument is unknown, or head=True: features lie in front of the head.
    """

    own_scope = "global"

    kind: FeatureKind = "frobenius"
    modules: Modules = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("head", not self.head, "it is False: features lie in front of the head")

    @property
    def evidence(self) -> Gradients:
        """Gradients of the size of the features."""
        return Gradients(objective=Feature(kind=self.kind, modules=self.modules))

    def score_site(self, site: Site, evidence: Gradients) -> torch.Tensor:
        """|w·g|."""
        return evidence.absolute_OI
