"""Relevance: how much of what the model answers came through a unit.

Source: Hatefi et al., "Attribution-guided Pruning for Compression, Circuit Discovery, and Targeted
Correction in LLMs" (SparC3), arXiv 2506.13727, equations 1 and 8, with the rules of AttnLRP
(arXiv 2402.05602; `lightning_prune.attribution`).
Needs one forward and backward pass over the calibration set on the dense model.
Differs: a neuron of the paper is a row of one Linear; here it is the whole unit, with what reads
it, which ranks neurons alike: the relevance of the three parts of a gated neuron stands in fixed
proportions. GQA groups are added to it. The paper does not say which output is explained: here the
largest logit at the last token.

Axes: U units of one block.
"""

from __future__ import annotations

from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Relevance as Products
from lightning_prune.methods.explained import Explained
from lightning_prune.methods.products import ProductPruning

__all__ = ["Relevance"]


class Relevance(PruningCallback, Explained, ProductPruning):
    """Remove the GQA groups and MLP neurons of lowest relevance.

    ```python
    Relevance(ratio=0.2)
    Relevance(ratio=0.2, attention=False, places="all")
    ```

    Args:
        aggregate: of the signed relevance of the weights in a unit, "mean_abs": the magnitude of
            the mean; "snr": that over the standard deviation; "mean": the mean itself, which takes
            first what speaks against the answer.
        trim: fraction of the weights that is left out at either end.
        signed: False: of the magnitudes of their relevance.

    Raises:
        ValueError: an argument is unknown or out of range, or the model has no such token.
    """

    @property
    def evidence(self) -> Products:
        """Relevance for the logit."""
        return Products(objective=self.answer)
