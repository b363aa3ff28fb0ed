"""Relevance for single weights: how much of what the model answers came through each.

Source: Hatefi et al., "Attribution-guided Pruning for Compression, Circuit Discovery, and Targeted
Correction in LLMs" (SparC3), arXiv 2506.13727, equations 1 and 8, with the rules of AttnLRP
(arXiv 2402.05602; `lightning_prune.attribution`).
Needs one forward and backward pass over the calibration set on the dense model.
Differs: there is no code of the paper, and it does not say which output is explained, nor whether
relevance keeps its sign in the mean. Here it is the largest logit at the last token, and the sign
is dropped behind the mean; `average="magnitudes"` drops it before.
"""

from __future__ import annotations

from typing import Literal

import torch

from lightning_prune.anatomy import Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.evidence import Relevance
from lightning_prune.methods.explained import Explained
from lightning_prune.methods.weights import WeightPruning

__all__ = ["WeightRelevance"]


class WeightRelevance(PruningCallback, Explained, WeightPruning):
    """Zero the weights of lowest relevance, compared within rows.

    ```python
    WeightRelevance(sparsity=0.5)
    WeightRelevance(sparsity=0.3, scope="global", average="magnitudes")
    ```

    Args:
        average: over sequences, "signed": of relevance with its sign, whose magnitude is the score;
            "magnitudes": of magnitudes, for twice the memory.

    Raises:
        ValueError: an argument is unknown, or the model has no such token.
    """

    own_scope = "row"

    average: Literal["signed", "magnitudes"] = "signed"

    @property
    def evidence(self) -> Relevance:
        """Relevance for the logit."""
        return Relevance(objective=self.answer, magnitudes=self.average == "magnitudes")

    def score_site(self, site: Site, evidence: Relevance) -> torch.Tensor:
        """Its magnitude."""
        return evidence.absolute_OI if self.average == "signed" else evidence.magnitude_OI
