"""A trained classifier of digits: what methods leave of it. Skipped without the shared data."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from lightning_prune import (
    FLAP,
    ImageClassifier,
    ImageData,
    LeastSquares,
    Magnitude,
    ResidualFit,
    SparseGPT,
    Taylor,
    Wanda,
    prune,
)
from lightning_prune.evaluation import classify
from tests.shared import shared_path

pytestmark = pytest.mark.slow


def module() -> ImageClassifier:
    made = ImageClassifier(str(shared_path("models/vit-mnist-012")))
    made.load()
    return made


@cache
def images() -> ImageData:
    """512 test images of the digits that it knows to calibrate on; it is judged on the others."""
    source = str(shared_path("data/mnist"))
    data = ImageData(source, classes=["0", "1", "2"], held_out=0.8, nsamples=512, batch_size=64)
    return data.attach(module().preparation)


@cache
def wrong(method: Any = None) -> float:
    """The share of the other images that is named wrongly."""
    pruned = module()
    if method is not None:
        prune(pruned.base, method, images().calibration_dataloader())
    return 1 - classify(pruned.base, images().val_dataloader()).accuracy


def test_zeros_cost_little_where_activations_are_looked_at() -> None:
    """Wanda at 60 and 70% is better than magnitude; methods that fit again are near the dense."""
    assert wrong() < 0.006
    for sparsity in (0.6, 0.7):
        assert wrong(Wanda(sparsity=sparsity)) < wrong(Magnitude(sparsity=sparsity))
        for method in (SparseGPT, ResidualFit):
            assert wrong(method(sparsity=sparsity)) < wrong() + 0.002
    # At half, nothing is lost by either: they differ by an image or two.
    assert wrong(Wanda(sparsity=0.5)) <= wrong(Magnitude(sparsity=0.5)) + 2 / 2514


@pytest.mark.parametrize(("method", "ratio"), [(Taylor, 0.25), (FLAP, 0.5)])
def test_a_repair_gives_half_of_the_loss_back(method: Any, ratio: float) -> None:
    """Of a quarter, or half, of the heads' and neurons' parameters; FLAP loses nothing before."""
    without = wrong(method(ratio=ratio, repair=None)) - wrong()
    assert without > 0.005
    assert wrong(method(ratio=ratio, repair=LeastSquares())) - wrong() <= without / 2
