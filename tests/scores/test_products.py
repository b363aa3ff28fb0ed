"""Products w·g of units made into one number each."""

from __future__ import annotations

import torch

from lightning_prune.scores.products import aggregate_units


def test_a_few_elements_are_not_trimmed_to_nothing() -> None:
    """2% of 30 elements is none of them; the authors' slice is empty then."""
    product_UE = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    for aggregate in ("mean_abs", "snr", "mean"):
        found = aggregate_units(product_UE, aggregate, trim=0.02)  # type: ignore[arg-type]
        assert torch.equal(found, aggregate_units(product_UE, aggregate))  # type: ignore[arg-type]
    assert torch.isfinite(aggregate_units(product_UE, "snr", trim=0.45)).all()


def test_opposite_products_cancel_unless_signs_are_dropped() -> None:
    """The mean of magnitudes is not the magnitude of the mean."""
    product_UE = torch.tensor([[1.0, -1.0], [0.5, 0.5]])
    assert aggregate_units(product_UE, "mean_abs").tolist() == [0.0, 0.5]
    assert aggregate_units(product_UE, "mean_abs", signed=False).tolist() == [1.0, 0.5]
