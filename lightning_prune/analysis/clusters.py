"""Whether features of a mask come in groups: neighbours, clusters, orders and blocks of zeros.

Everything is of masks, never of weights, and is done again on masks that were shuffled with the
counts of their rows and columns kept: on a mask without structure, too, clusters are found, and
orders that look better than none.

The original's code clusters values and measures distances of masks; takes 50 random pairs for the
distance between clusters, where all pairs count here; and finds every feature nearest to itself.

Axes: O output features, I input features, F features: rows or columns; D places of a feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lightning_prune.analysis.coherence import Coherence, coherence, shuffled
from lightning_prune.analysis.extra import check_extra
from lightning_prune.analysis.grouping import Grouping, Neighbour
from lightning_prune.analysis.keys import place_of
from lightning_prune.analysis.masks import Masks, shared_names
from lightning_prune.analysis.orders import hamming_distances, seriation
from lightning_prune.analysis.similarity import Axis, is_by_rows

__all__ = [
    "Clustering",
    "MatrixClusters",
    "Neighbour",
    "Order",
    "Spread",
    "cluster_masks",
    "middle_block",
]


class Spread(NamedTuple):
    """One number for each seed: their mean, and the deviation of these as a sample."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of several; the deviation of one is 0."""
        several = len(values) > 1
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if several else 0.0)


@dataclass(frozen=True)
class Clustering:
    """K-means of so many clusters.

    Attributes:
        count: how many clusters.
        within, between: mean distance of two features of one cluster, and of different ones.
        silhouette: (between - within) / the larger, of each feature with its nearest other cluster.
        agreement: adjusted Rand index of every two seeds, where both took the same features; 1: the
            same clusters, 0: as alike as by chance.
        shuffled: the silhouette that shuffled masks reach.
    """

    count: int
    within: Spread
    between: Spread
    silhouette: Spread
    agreement: Spread | None
    shuffled: Spread


@dataclass(frozen=True)
class Order:
    """An order of the features: mean distance of neighbours in a mask, and in shuffled ones."""

    name: str
    distance: Spread
    shuffled: Spread


@dataclass(frozen=True)
class MatrixClusters:
    """What was found in one matrix.

    Attributes:
        name: of the matrix.
        by_rows: whether features are rows.
        features: how many there are.
        taken: of how many, drawn at random for each seed, distances are known.
        distance: mean of every two features.
        nearest_distance: mean of each feature to the nearest other one.
        nearest_shuffled: the same in shuffled masks.
        nearest: the nearest pairs of the first seed.
        clusterings: by how many clusters.
        orders: "as stored", "gradient" (by the distance to one feature), "seriation".
        blocks: of zeros, as stored and with rows and columns in seriation's order.
        sample: the features of the first seed, for pictures: "index", "keep" (F, D), "cluster",
            and their orders by name.
    """

    name: str
    by_rows: bool
    features: int
    taken: int
    distance: Spread
    nearest_distance: Spread
    nearest_shuffled: Spread
    nearest: Sequence[Neighbour]
    clusterings: Sequence[Clustering]
    orders: Sequence[Order]
    blocks: Sequence[Coherence]
    sample: Mapping[str, np.ndarray] = field(repr=False, default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can say it, but for the sample."""
        values = {name: value for name, value in vars(self).items() if name != "sample"}
        for name in ("nearest", "clusterings", "orders", "blocks"):
            values[name] = [asdict(part) for part in values[name]]
        return values


def cluster_masks(
    masks: Masks,
    include: Sequence[str] = ("*",),
    axis: Axis = "auto",
    counts: Sequence[int] = (4, 8, 16),
    features: int = 512,
    seeds: Sequence[int] = (0, 1, 2),
) -> Iterator[MatrixClusters]:
    """Look for structure in the masks of some matrices, one after the other.

    Args:
        masks: of a checkpoint or a plan.
        include: patterns of names of matrices.
        axis: features are "rows" or "columns"; "auto": rows of down_proj, columns of all others.
        counts: of clusters.
        features: so many at most are drawn for each seed.
        seeds: of what is drawn at random; the more, the better the deviations.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
        ValueError: no matrix, count, seed or features; or more clusters than features.
    """
    check_extra("looking for clusters", "sklearn")
    shapes = shared_names([masks], include)
    _check(shapes, axis, counts, features, seeds)
    for name in shapes:
        yield _of_matrix(name, masks.mask(name), is_by_rows(name, axis), counts, features, seeds)


def middle_block(masks: Masks) -> list[str]:
    """The names of the matrices of the block in the middle."""
    places = {name: place_of(name) for name in masks.shapes}
    blocks = sorted({place[0] for place in places.values() if place is not None})
    middle = blocks[len(blocks) // 2]
    return [name for name, place in places.items() if place is not None and place[0] == middle]


def _check(
    shapes: Mapping[str, tuple[int, int]],
    axis: Axis,
    counts: Sequence[int],
    features: int,
    seeds: Sequence[int],
) -> None:
    if not counts or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"counts={list(counts)}, seeds={list(seeds)}; give one or more, each once")
    for name, shape in shapes.items():
        taken = min(features, shape[0] if is_by_rows(name, axis) else shape[1])
        if min(counts) < 2 or max(counts) >= taken:
            raise ValueError(
                f"counts={list(counts)}: {name} has {taken} features that are looked at, and takes "
                f"2 to {taken - 1} clusters"
            )


def _of_matrix(
    name: str,
    keep_OI: np.ndarray,
    by_rows: bool,
    counts: Sequence[int],
    features: int,
    seeds: Sequence[int],
) -> MatrixClusters:
    every_FD = keep_OI if by_rows else keep_OI.T
    found, null = [], []
    for seed in seeds:
        index_F = _drawn(len(every_FD), features, seed)
        found.append(Grouping.of(every_FD[index_F], index_F, counts, seed))
        mixed_FD = shuffled(every_FD[index_F], seed, keep_columns=True)
        null.append(Grouping.of(mixed_FD, index_F, counts, seed))
    first = found[0]
    best = max(counts, key=lambda count: first.silhouettes[count])
    return MatrixClusters(
        name,
        by_rows,
        len(every_FD),
        len(first.index_F),
        Spread.of([f.distance for f in found]),
        Spread.of([f.nearest_distance for f in found]),
        Spread.of([f.nearest_distance for f in null]),
        first.neighbours(),
        [_clustering(count, found, null) for count in counts],
        [_order(order, found, null) for order in first.orders],
        coherence(keep_OI, seeds, _ordered(keep_OI, features)),
        {"index": first.index_F, "keep": first.keep_FD, "cluster": first.labels[best]}
        | {order: index_F for order, index_F in first.orders.items()},
    )


def _drawn(total: int, most: int, seed: int) -> np.ndarray:
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, most, replace=False))


def _ordered(keep_OI: np.ndarray, most: int) -> np.ndarray | None:
    """A mask with its rows and columns in an order of theirs; None: they are too many."""
    if max(keep_OI.shape) > 4 * most:
        return None
    rows, columns = (seriation(hamming_distances(mask)) for mask in (keep_OI, keep_OI.T))
    return keep_OI[rows][:, columns]


def _clustering(count: int, found: Sequence[Grouping], null: Sequence[Grouping]) -> Clustering:
    from sklearn.metrics import adjusted_rand_score

    apart = [f.within_and_between(count) for f in found]
    same = all(np.array_equal(f.index_F, found[0].index_F) for f in found)
    agreements = [
        float(adjusted_rand_score(a.labels[count], b.labels[count]))
        for i, a in enumerate(found)
        for b in found[:i]
    ]
    return Clustering(
        count,
        Spread.of([within for within, _ in apart]),
        Spread.of([between for _, between in apart]),
        Spread.of([f.silhouettes[count] for f in found]),
        Spread.of(agreements) if same and agreements else None,
        Spread.of([f.silhouettes[count] for f in null]),
    )


def _order(name: str, found: Sequence[Grouping], null: Sequence[Grouping]) -> Order:
    near, mixed = ([f.apart(name) for f in several] for several in (found, null))
    return Order(name, Spread.of(near), Spread.of(mixed))
