"""How far features of a mask are from each other, and orders in which neighbours are near.

The distance of two features is Hamming's: the fraction of places where one is zero and the other is
not.

Axes: F features, D places of a feature.
"""

from __future__ import annotations

import numpy as np

__all__ = ["gradient_order", "hamming_distances", "nearest", "neighbour_distance", "seriation"]


def hamming_distances(keep_FD: np.ndarray) -> np.ndarray:
    """The distance of every two features, (F, F): (n_i + n_j - 2 n_ij) / D.

    Counts are exact in float32 up to sixteen million places.
    """
    ones_FD = keep_FD.astype(np.float32)
    both_FF = ones_FD @ ones_FD.T
    count_F = both_FF.diagonal()
    return (count_F[:, None] + count_F - 2 * both_FF) / max(keep_FD.shape[1], 1)


def nearest(distance_FF: np.ndarray, count: int) -> np.ndarray:
    """The nearest other features of each, (F, count), the nearest first; equals by index."""
    alone_FF = distance_FF.copy()
    np.fill_diagonal(alone_FF, np.inf)  # a feature is no neighbour of its own
    return np.argsort(alone_FF, axis=1, kind="stable")[:, : min(count, len(alone_FF) - 1)]


def gradient_order(distance_FF: np.ndarray, start: int = 0) -> np.ndarray:
    """Features by their distance to one of them: the "co-activation gradient"."""
    order_F = np.argsort(distance_FF[start], kind="stable")
    return np.concatenate([[start], order_F[order_F != start]])


def seriation(distance_FF: np.ndarray) -> np.ndarray:
    """An order in which neighbours are near.

    The leaves of an average-linkage tree, with its branches turned so that the sum of the distances
    of neighbours is the least that the tree allows (Bar-Joseph et al., 2001), as scipy does it.

    Raises:
        ModuleNotFoundError: scipy is not installed.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    if len(distance_FF) < 3:
        return np.arange(len(distance_FF))
    pairs_P = squareform(distance_FF, checks=False).astype(np.float64)
    return leaves_list(optimal_leaf_ordering(linkage(pairs_P, "average"), pairs_P))


def neighbour_distance(distance_FF: np.ndarray, order_F: np.ndarray) -> float:
    """The mean distance of features that follow each other in an order."""
    return float(distance_FF[order_F[:-1], order_F[1:]].mean()) if len(order_F) > 1 else 0.0
