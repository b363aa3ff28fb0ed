"""Settings that cannot be are refused when the method is made."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_prune import OWL, Ablation, GlobalStandardised, SparseGPT, Wanda


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Wanda(pattern="2:4", allocation=OWL()), "fixes the sparsity of every block"),
        (lambda: Wanda(pattern="2:4", scope="row"), "not in a row; leave scope out"),
        (
            lambda: Wanda(sparsity=0.5, propagate="all"),
            "propagate='all' .*'block', 'layer', 'none'",
        ),  # type: ignore[arg-type]
        (lambda: Wanda(sparsity=0.5, scope="column"), "scope='column' .*'row', 'balanced'.* None"),  # type: ignore[arg-type]
        (lambda: Wanda(sparsity=0.5, ties="random"), "ties='random' .*'exact', 'reference'"),  # type: ignore[arg-type]
        (
            lambda: Wanda(sparsity=0.5, allocation=GlobalStandardised()),
            "compares units, and Wanda removes single weights; take an allocation per block or per",
        ),
        (
            lambda: Wanda(sparsity=0.5, scope="global", allocation=OWL()),
            "scope='global' compares the weights of all blocks.*take one of them",
        ),
        (lambda: Wanda(pattern="2:4", adaptive=True), "adaptive=True .*neither pattern='2:4' nor"),
        (lambda: Wanda(sparsity=0.5, scope="row", adaptive=True), "nor scope='row'"),
        (lambda: Ablation(sparsity=0.5, mask="ria"), "mask='ria' .*'magnitude', 'wanda'"),  # type: ignore[arg-type]
        (lambda: Ablation(sparsity=0.5, mask_from="dense"), "mask_from='dense' .*'original'"),  # type: ignore[arg-type]
        (lambda: SparseGPT(sparsity=0.5, damping=0.0), "damping=0.0 is not allowed; it is above 0"),
        (lambda: SparseGPT(sparsity=0.5, columns=0), "columns=0 is not allowed; it is 1 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, message: str) -> None:
    """When the method is made, with what is allowed."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pattern": 0.5}, "pattern=0.5 is not allowed; it is a text or a whole number or None"),
        ({"sparsity": "0.5"}, "sparsity='0.5' is not allowed; it is a number or None"),
        (
            {"sparsity": 0.5, "allocation": "OWL"},
            "allocation='OWL' is not allowed; it is an object of the class Allocation",
        ),
    ],
)
def test_wrong_types_are_said(settings: dict[str, Any], said: str) -> None:
    """As one line, not as an error from within."""
    with pytest.raises(ValueError, match=said):
        Wanda(**settings)
