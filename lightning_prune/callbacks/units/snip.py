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

Axes: U units of one block.
"""

from __future__ import annotations

from lightning_prune.anatomy import Labels
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Gradients, TaskLoss
from lightning_prune.methods.products import ProductPruning

__all__ = ["SNIP"]


class SNIP(PruningCallback, ProductPruning):
    """Remove the GQA groups and MLP neurons whose products w·g of the loss are small on average.

    ```python
    SNIP(ratio=0.2)
    SNIP(ratio=0.2, attention=False, labels="reference", aggregate="mean")   # the authors' code
    ```

    Args:
        labels: "all": every next token; "reference": the last token of each sequence alone, not
            shifted, as in the authors' code.
        aggregate: of the signed products in a unit, "mean_abs": the magnitude of the mean; "snr":
            that over the standard deviation; "mean": the mean itself, as in the authors' code.
        trim: fraction of the products that is left out at either end.
        signed: False: of the magnitudes of the products.

    Raises:
        ValueError: an argument is unknown or out of range.
    """

    labels: Labels = "all"

    @property
    def evidence(self) -> Gradients:
        """Gradients of the loss."""
        return Gradients(objective=TaskLoss(labels=self.labels))
