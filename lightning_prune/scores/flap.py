"""What the output loses when an input feature is held at its mean.

Source: An et al., "FLAP", arXiv 2312.11983, section 3.2.

Axes: O output features, I input features.
"""

from __future__ import annotations

from typing import Literal

import torch

from lightning_prune.evidence import Moments
from lightning_prune.scores.wanda import column_score

__all__ = ["Metric", "feature_score"]


Metric = Literal["WIFV", "WIFN", "IFV"]


def feature_score(metric: Metric, weight_OI: torch.Tensor, moments: Moments) -> torch.Tensor:
    """One of FLAP's metrics of every input feature, fp32, (I,).

    Args:
        metric: which one.
        weight_OI: the weight that reads the features.
        moments: of the features.
    """
    if metric == "WIFN":
        return column_score(weight_OI, moments.norm_I)
    if metric == "IFV":
        return moments.variance_I
    return moments.variance_I * weight_OI.detach().float().square().sum(dim=0)
