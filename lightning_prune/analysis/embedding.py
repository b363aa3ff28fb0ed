"""Features of a mask as points of a plane.

Axes: F features, D places of a feature.
"""

from __future__ import annotations

import numpy as np

__all__ = ["neighbour_map", "principal_components"]

PERPLEXITY = 30.0


def principal_components(keep_FD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components, (F, 2), and the share of the variance in each."""
    from sklearn.decomposition import PCA

    values_FD = keep_FD.astype(np.float64)
    if not values_FD.var(axis=0).any():  # features that are all alike have no direction
        return np.zeros((len(keep_FD), 2)), np.zeros(2)
    made = PCA(2, svd_solver="full").fit(values_FD)
    return made.transform(values_FD), made.explained_variance_ratio_


def neighbour_map(distance_FF: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE of Hamming's distances, (F, 2): neighbours stay near, other distances say nothing."""
    from sklearn.manifold import TSNE

    made = TSNE(
        metric="precomputed",
        init="random",
        perplexity=min(PERPLEXITY, (len(distance_FF) - 1) / 3),
        random_state=seed,
    )
    return made.fit_transform(np.maximum(distance_FF, 0))
