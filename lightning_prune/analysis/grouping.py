"""One set of features of a mask: how far apart they are, their clusters and their orders.

Axes: F features, D places of a feature.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_prune.analysis.orders import (
    gradient_order,
    hamming_distances,
    nearest,
    neighbour_distance,
    seriation,
)

__all__ = ["Grouping", "Neighbour"]

STARTS = 4
"""How often k-means begins anew for each seed; the best is taken."""
NEAREST = 10


@dataclass(frozen=True)
class Neighbour:
    """Two features that are near: indices in the matrix, and Hamming's distance."""

    feature: int
    nearest: int
    distance: float


@dataclass(frozen=True)
class Grouping:
    """What is found in the features that one seed drew.

    Attributes:
        keep_FD: their masks.
        index_F: which features of the matrix they are.
        distance_FF: of every two.
        orders: "as stored", "gradient" (by the distance to one that is drawn), "seriation".
        labels: by how many clusters, the cluster of each.
        silhouettes: by how many clusters.
    """

    keep_FD: np.ndarray
    index_F: np.ndarray
    distance_FF: np.ndarray
    orders: Mapping[str, np.ndarray]
    labels: Mapping[int, np.ndarray]
    silhouettes: Mapping[int, float]

    @classmethod
    def of(
        cls, keep_FD: np.ndarray, index_F: np.ndarray, counts: Sequence[int], seed: int
    ) -> Grouping:
        """Cluster and order these features."""
        distance_FF = hamming_distances(keep_FD)
        start = int(np.random.default_rng(seed).integers(len(keep_FD)))
        orders = {
            "as stored": np.arange(len(keep_FD)),
            "gradient": gradient_order(distance_FF, start),
            "seriation": seriation(distance_FF),
        }
        labels = {count: _k_means(keep_FD, count, seed) for count in counts}
        silhouettes = {
            count: _silhouette(distance_FF, label_F) for count, label_F in labels.items()
        }
        return cls(keep_FD, index_F, distance_FF, orders, labels, silhouettes)

    @property
    def distance(self) -> float:
        """The mean of every two features."""
        return _mean(self.distance_FF, ~np.eye(len(self.distance_FF), dtype=bool))

    @property
    def nearest_distance(self) -> float:
        """The mean of each feature to its nearest other one."""
        first_F = nearest(self.distance_FF, 1)[:, 0]
        return float(self.distance_FF[np.arange(len(first_F)), first_F].mean())

    def neighbours(self) -> list[Neighbour]:
        """The features that are nearest to another one, each with it; a pair once."""
        first_F = nearest(self.distance_FF, 1)[:, 0]
        pairs = {(min(i, int(j)), max(i, int(j))) for i, j in enumerate(first_F)}
        near = sorted(pairs, key=lambda pair: (self.distance_FF[pair], pair))[:NEAREST]
        return [
            Neighbour(int(self.index_F[i]), int(self.index_F[j]), float(self.distance_FF[i, j]))
            for i, j in near
        ]

    def within_and_between(self, count: int) -> tuple[float, float]:
        """Mean distances of two features of one cluster, and of different ones."""
        label_F = self.labels[count]
        same_FF = label_F[:, None] == label_F
        other_FF = ~same_FF
        np.fill_diagonal(same_FF, False)
        return _mean(self.distance_FF, same_FF), _mean(self.distance_FF, other_FF)

    def apart(self, order: str) -> float:
        """The mean distance of neighbours in an order."""
        return neighbour_distance(self.distance_FF, self.orders[order])


def _k_means(keep_FD: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # where fewer features differ, some clusters stay empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        made = KMeans(count, n_init=STARTS, random_state=seed).fit(keep_FD.astype(np.float32))
    return made.labels_


def _silhouette(distance_FF: np.ndarray, label_F: np.ndarray) -> float:
    from sklearn.metrics import silhouette_score

    if len(np.unique(label_F)) < 2:  # features that are all alike
        return 0.0
    square_FF = distance_FF.copy()
    np.fill_diagonal(square_FF, 0)
    return float(silhouette_score(square_FF, label_F, metric="precomputed"))


def _mean(distance_FF: np.ndarray, chosen_FF: np.ndarray) -> float:
    return float(distance_FF[chosen_FF].mean()) if chosen_FF.any() else 0.0
