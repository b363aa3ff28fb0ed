"""Magnitude pruning: the smallest weights go.

Source: Han et al. 2015, arXiv 1506.02626; as a baseline in Sun et al. 2023, arXiv 2306.11695.
Needs no calibration data. Cost: no forward pass.
Differs from the code of arXiv 2306.11695: exactly the count asked for is removed; its threshold
(`<=`) removes one weight more, and every tie.

Axes: O output features, I input features.
"""

from __future__ import annotations

from typing import Any

import torch

from lightning_prune.anatomy import Site
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.scores.magnitude import magnitude_score

__all__ = ["Magnitude"]


class Magnitude(PruningCallback, WeightPruning):
    """Zero the smallest weights of each weight matrix.

    ```python
    Magnitude(sparsity=0.5)
    Magnitude(pattern="2:4")
    ```
    """

    own_scope = "matrix"

    def score_site(self, site: Site, evidence: Any) -> torch.Tensor:
        """The weight's magnitude."""
        return magnitude_score(site.module.weight)
