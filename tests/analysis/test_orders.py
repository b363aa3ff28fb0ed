"""Distances, neighbours and orders of features, against slow loops and known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lightning_prune.analysis.orders import (
    gradient_order,
    hamming_distances,
    nearest,
    neighbour_distance,
    seriation,
)


def banded(features: int = 60, width: int = 12) -> np.ndarray:
    """Features that share less the farther they are from each other, in an order that is lost."""
    keep_FD = np.zeros((features, features + width), dtype=bool)
    for f in range(features):
        keep_FD[f, f : f + width] = True
    return keep_FD[np.random.default_rng(0).permutation(features)]


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_distances_are_scipys(density: float) -> None:
    """And zero from each feature to itself."""
    keep_FD = np.random.default_rng(1).random((20, 37)) < density
    expected_FF = cdist(keep_FD, keep_FD, "hamming")
    np.testing.assert_allclose(hamming_distances(keep_FD), expected_FF, atol=1e-6)


def test_no_feature_is_its_own_neighbour() -> None:
    """Not even where two are alike."""
    distance_FF = hamming_distances(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=bool))
    assert nearest(distance_FF, 1).ravel().tolist() == [1, 0, 0]
    assert nearest(distance_FF, 9).shape == (3, 2)


def test_a_gradient_begins_at_its_feature_and_goes_away_from_it() -> None:
    """The original's: by the distance to one column."""
    distance_FF = hamming_distances(banded())
    order_F = gradient_order(distance_FF, 7)
    assert order_F[0] == 7
    assert (np.diff(distance_FF[7, order_F]) >= 0).all()
    assert sorted(order_F) == list(range(60))


def test_seriation_finds_an_order_that_was_lost() -> None:
    """Neighbours as near as they can be, where the distance to one feature leaves them apart."""
    keep_FD = banded()
    distance_FF = hamming_distances(keep_FD)
    order_F = seriation(distance_FF)
    assert sorted(order_F) == list(range(60))
    best = neighbour_distance(distance_FF, np.argsort(keep_FD.argmax(axis=1)))
    assert neighbour_distance(distance_FF, order_F) == pytest.approx(best)
    assert neighbour_distance(distance_FF, gradient_order(distance_FF)) > 1.5 * best


@pytest.mark.parametrize("features", [1, 2, 3])
def test_few_features_have_an_order(features: int) -> None:
    """Any."""
    distance_FF = hamming_distances(np.eye(features, dtype=bool))
    assert sorted(seriation(distance_FF)) == list(range(features))
    assert neighbour_distance(distance_FF, seriation(distance_FF)) >= 0
