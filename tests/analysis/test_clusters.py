"""Groups of features: planted ones are found, and none where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import adjusted_rand_score

from lightning_prune.analysis import extra
from lightning_prune.analysis.clusters import MatrixClusters, cluster_masks, middle_block
from lightning_prune.analysis.embedding import neighbour_map, principal_components
from lightning_prune.analysis.masks import Masks
from lightning_prune.analysis.orders import hamming_distances

UP = "model.layers.0.mlp.up_proj.weight"
GROUPS = np.random.default_rng(5).integers(0, 4, 48)


def planted(noise: float = 0.1) -> np.ndarray:
    """48 features of 64 places: four kinds, and some places of each changed."""
    random = np.random.default_rng(0)
    kinds = random.random((4, 64)) < 0.5
    return kinds[GROUPS] ^ (random.random((48, 64)) < noise)


def opened(tmp_path: Path, keep_FD: np.ndarray) -> Masks:
    """The features are columns of an up_proj."""
    weight_OI = torch.from_numpy(keep_FD.T.astype(np.float32))
    save_file({UP: weight_OI.contiguous()}, tmp_path / "model.safetensors")
    return Masks(tmp_path / "model.safetensors")


def found(masks: Masks, counts: tuple[int, ...] = (4,), **settings: object) -> MatrixClusters:
    (matrix,) = cluster_masks(masks, counts=counts, **settings)  # type: ignore[arg-type]
    return matrix


def test_planted_groups_are_found(tmp_path: Path) -> None:
    """Every seed finds the same; shuffled masks with the same counts have no such groups."""
    keep_FD = planted()
    matrix = found(opened(tmp_path, keep_FD))
    (clustering,) = matrix.clusterings
    distance_FF = hamming_distances(keep_FD)
    same_FF = GROUPS[:, None] == GROUPS
    within = distance_FF[same_FF & ~np.eye(48, dtype=bool)].mean()
    assert clustering.within.mean == pytest.approx(within)
    assert clustering.between.mean == pytest.approx(distance_FF[~same_FF].mean())
    assert clustering.agreement is not None
    assert clustering.agreement.mean == 1
    assert clustering.silhouette.mean > 0.5 > 5 * clustering.shuffled.mean
    assert adjusted_rand_score(matrix.sample["cluster"], GROUPS) == 1
    gradient, seriated = matrix.orders[1:]
    assert seriated.distance.mean < 0.8 * gradient.distance.mean
    assert seriated.distance.mean < 0.6 * seriated.shuffled.mean
    for near in matrix.nearest:
        assert GROUPS[near.feature] == GROUPS[near.nearest]
        assert near.distance == pytest.approx(float(distance_FF[near.feature, near.nearest]))


def test_a_random_mask_has_no_more_than_shuffled_ones(tmp_path: Path) -> None:
    """Clusters are found in it, too; so they prove nothing."""
    matrix = found(opened(tmp_path, np.random.default_rng(1).random((48, 64)) < 0.5))
    (clustering,) = matrix.clusterings
    assert abs(clustering.silhouette.mean - clustering.shuffled.mean) < 0.02
    seriated = matrix.orders[2]
    assert seriated.distance.mean == pytest.approx(seriated.shuffled.mean, rel=0.02)
    assert seriated.distance.mean < matrix.orders[0].distance.mean


def test_of_many_features_some_are_drawn_by_each_seed(tmp_path: Path) -> None:
    """Then two seeds cluster different ones, and do not agree or disagree."""
    masks = opened(tmp_path, planted())
    matrix = found(masks, features=20, seeds=(3, 4))
    assert (matrix.taken, matrix.features, len(matrix.sample["index"])) == (20, 48, 20)
    assert matrix.clusterings[0].agreement is None
    assert matrix.clusterings[0].within.deviation > 0
    again = found(masks, features=20, seeds=(3, 4))
    assert again.to_dict() == matrix.to_dict()


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_features_that_are_all_alike_are_one_group(density: float, tmp_path: Path) -> None:
    """Without warnings: no silhouette, no distance, no direction."""
    keep_FD = np.full((12, 20), bool(density))
    (clustering,) = found(opened(tmp_path, keep_FD), counts=(2,)).clusterings
    assert clustering.silhouette == (0, 0)
    assert principal_components(keep_FD)[1].tolist() == [0, 0]


def test_points_of_one_group_lie_together() -> None:
    """In both maps."""
    keep_FD = planted()
    for points in (principal_components(keep_FD)[0], neighbour_map(hamming_distances(keep_FD), 0)):
        apart = np.linalg.norm(points[:, None] - points, axis=-1)
        apart[np.diag_indices(48)] = np.inf
        assert (GROUPS[apart.argmin(axis=1)] == GROUPS).mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": (4, 48)}, r"counts=\[4, 48\]: .* has 48 features .* takes 2 to 47 clusters"),
        ({"counts": (1,)}, "takes 2 to 47 clusters"),
        ({"seeds": (1, 1)}, "give one or more, each once"),
        ({"include": ["*.down*"]}, "matches no matrix"),
    ],
)
def test_what_makes_no_sense_is_refused(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    """Before the first matrix."""
    with pytest.raises(ValueError, match=message):
        found(opened(tmp_path, planted()), **settings)  # type: ignore[arg-type]


def test_a_missing_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And how it is installed."""
    masks = opened(tmp_path, planted())
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs scikit-learn: pip install 'lightning-"):
        found(masks)


def test_the_block_in_the_middle_is_found(tmp_path: Path) -> None:
    """By its number."""
    weights = {UP.replace("0", str(i)): torch.ones(2, 2) for i in (0, 2, 10)}
    save_file(weights, tmp_path / "model.safetensors")
    assert middle_block(Masks(tmp_path / "model.safetensors")) == [UP.replace("0", "2")]
