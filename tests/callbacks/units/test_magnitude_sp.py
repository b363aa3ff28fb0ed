"""MagnitudeSP needs no calibration of its own."""

from __future__ import annotations

import pytest

from lightning_prune import MagnitudeSP
from lightning_prune.pipeline import prune
from tests.contract.cases import even_model


def test_magnitudes_need_no_calibration_without_a_repair() -> None:
    """No batches are asked for."""
    assert prune(even_model("llama"), MagnitudeSP(ratio=0.5, repair=None)).removes_anything
    with pytest.raises(ValueError, match="needs calibration batches"):
        prune(even_model("llama"), MagnitudeSP(ratio=0.5))


def test_other_norms_are_refused() -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match="MagnitudeSP: norm=3 .* one of 1, 2"):
        MagnitudeSP(ratio=0.5, norm=3)  # type: ignore[arg-type]
