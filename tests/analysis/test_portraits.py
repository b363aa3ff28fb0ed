"""What pictures of masks are drawn from."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightning_prune.analysis.density import density
from lightning_prune.analysis.masks import Masks
from lightning_prune.analysis.portraits import PLACES, intersections, portrait
from tests.analysis.test_scores import random, weight_plan

UP = "model.layers.{}.mlp.up_proj.weight"


def opened(tmp_path: Path, seed: int, blocks: int = 2) -> Masks:
    weights = {
        UP.format(i): random(6, 8, seed=seed + i) * (random(6, 8, seed=seed + 50 + i) < 0.5)
        for i in range(blocks)
    }
    save_file(weights, tmp_path / f"{seed}.safetensors")
    return Masks(tmp_path / f"{seed}.safetensors")


@pytest.mark.parametrize(("shape", "most"), [((10, 7), 4), ((3, 50), 16), ((5, 5), 9), ((8, 8), 1)])
def test_every_weight_is_in_one_cell(shape: tuple[int, int], most: int) -> None:
    """Cells are means of what is in them, and as even as they can be."""
    keep_OI = np.random.default_rng(0).random(shape) < 0.3
    found_YX = density(keep_OI, most)
    assert found_YX.shape == tuple(min(side, most) for side in shape)
    sizes = np.zeros(found_YX.shape)
    edges = [[side * i // min(side, most) for i in range(min(side, most) + 1)] for side in shape]
    for y, x in np.ndindex(found_YX.shape):
        cell = keep_OI[edges[0][y] : edges[0][y + 1], edges[1][x] : edges[1][x + 1]]
        sizes[y, x] = cell.size
        assert found_YX[y, x] == pytest.approx(cell.mean())
    assert sizes.sum() == keep_OI.size
    assert (found_YX * sizes).sum() == pytest.approx(keep_OI.sum())


@pytest.mark.parametrize("count", [2, 3])
def test_intersections_are_those_of_sets(count: int, tmp_path: Path) -> None:
    """Each weight is in just one of them."""
    sources = {f"m{i}": opened(tmp_path, 100 * i) for i in range(count)}
    sets = {
        name: {(n, *place) for n in masks.shapes for place in np.argwhere(masks.mask(n)).tolist()}
        for name, masks in sources.items()
    }
    found = intersections(sources)
    assert sum(found.values()) == 2 * 48
    for size in range(1, count + 1):
        for inside in combinations(sets, size):
            others = set().union(*(sets[name] for name in sets if name not in inside))
            assert found[inside] == len(set.intersection(*(sets[n] for n in inside)) - others)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_curve_is_what_the_highest_hold(tmp_path: Path) -> None:
    """Of the scores of a plan, or of the magnitudes of a checkpoint's weights."""
    plan = weight_plan("Wanda", seed=0)
    plan.save(tmp_path)
    masks, name = Masks(tmp_path), UP.format(0)
    drawn = portrait(masks, [name]).matrices[name]
    assert drawn.scores == "scores of Wanda"
    assert drawn.weights is None
    score_N, keep_N = plan.scores("weight", name).flatten(), plan.mask(name).flatten()
    ordered_N = score_N.sort(descending=True).values
    assert drawn.curve is not None
    for place, held in zip(PLACES, drawn.curve.held_Q, strict=True):
        count = round(place * 48)
        assert held == pytest.approx(float(ordered_N[:count].sum() / score_N.sum()), abs=1e-6)
    assert drawn.curve.held_by_kept == pytest.approx(float(score_N[keep_N].sum() / score_N.sum()))
    valued = portrait(opened(tmp_path, 7), [name]).matrices[name]
    assert valued.scores == "magnitudes of weights"
    assert valued.curve is not None
    assert valued.curve.held_by_kept == pytest.approx(1)


def test_numbers_that_are_none_are_counted_and_left_out(tmp_path: Path) -> None:
    """Curve and histogram are those of the others; where there are no others there is no curve."""
    name, weight_OI = UP.format(0), random(6, 8, seed=0)
    weight_OI[0, 0], weight_OI[1, 1] = float("nan"), float("inf")
    save_file({name: weight_OI}, tmp_path / "some.safetensors")
    found = portrait(Masks(tmp_path / "some.safetensors"), [name])
    drawn = found.matrices[name]
    assert drawn.strange == 2
    assert found.to_dict()["matrices"][name]["not_finite"] == 2
    assert drawn.weights is not None
    assert drawn.weights[0].sum() == 46
    assert drawn.curve is not None
    assert np.isfinite(drawn.curve.held_Q).all()
    save_file({name: torch.full((6, 8), float("nan"))}, tmp_path / "all.safetensors")
    drawn = portrait(Masks(tmp_path / "all.safetensors"), [name]).matrices[name]
    assert (drawn.strange, drawn.curve) == (48, None)


def test_all_matrices_have_their_zeros_counted(tmp_path: Path) -> None:
    """Also those that are not drawn one by one; rows and columns of those that are."""
    masks = opened(tmp_path, 3, blocks=3)
    found = portrait(masks, [UP.format(1)])
    assert list(found.matrices) == [UP.format(1)]
    for block in range(3):
        keep_OI = torch.from_numpy(masks.mask(UP.format(block)))
        assert found.zeros[block, "mlp.up_proj"] == pytest.approx(1 - float(keep_OI.float().mean()))
    columns = 1 - masks.mask(UP.format(1)).mean(axis=0)
    np.testing.assert_allclose(found.matrices[UP.format(1)].zeros_I, columns)


def test_too_many_masks_or_one_are_no_intersection(tmp_path: Path) -> None:
    """Of seven there are 127."""
    masks = opened(tmp_path, 0)
    for count in (1, 7):
        with pytest.raises(ValueError, match=f"of 2 to 6 masks, and {count} are given"):
            intersections({str(i): masks for i in range(count)})
