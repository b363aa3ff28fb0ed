"""SNIP for single weights: what the loss feels of each, to first order, |w · ∂L/∂w|.

Source: Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity",
arXiv 1810.02340, equation 6, and the unstructured variant of the code of arXiv 2607.08027.
Needs one forward and backward pass over the calibration set on the dense model.
Differs from that code as `SNIP` does: the loss is that of every next token (`labels="reference"` is
theirs), and the gradient is that of the whole calibration set.
"""

from __future__ import annotations

import torch

from lightning_prune.anatomy import Labels, Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Gradients, TaskLoss
from lightning_prune.methods.weights import WeightPruning

__all__ = ["WeightSNIP"]


class WeightSNIP(PruningCallback, WeightPruning):
    """Zero the weights of lowest |w · ∂L/∂w|, compared across all blocks.

    ```python
    WeightSNIP(sparsity=0.5)
    WeightSNIP(sparsity=0.5, include="*.mlp.*", labels="reference")   # the authors' code
    ```

    Args:
        labels: "all": every next token; "reference": the last token of each sequence alone, not
            shifted, as in the authors' code.

    Raises:
        ValueError: labels are neither.
    """

    own_scope = "global"

    labels: Labels = "all"

    @property
    def evidence(self) -> Gradients:
        """Gradients of the loss."""
        return Gradients(objective=TaskLoss(labels=self.labels))

    def score_site(self, site: Site, evidence: Gradients) -> torch.Tensor:
        """|w·g|."""
        return evidence.absolute_OI
