"""What the costlier methods are for, through the package and on real activations."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_prune import ALPS, Magnitude, SparseGPT, Wanda
from lightning_prune.evidence import Gram
from lightning_prune.sweep import collect
from tests.reference.stories import pruned, stories, windows
from tests.repair.problems import relative_error
from tests.sweep.helpers import states_of

NEAREST = {"matrix": {"scope": "columns"}}  # SparseGPT takes 128 columns at a time


@pytest.mark.parametrize(
    "settings", [{"sparsity": 0.5, "scope": "matrix"}, {"pattern": "2:4"}], ids=str
)
def test_alps_sparsegpt_wanda_magnitude(settings: dict[str, Any]) -> None:
    """In every Linear, with the same scope and the same inputs, errors stand in this order."""
    states = states_of(stories(), windows("calibration", 16))
    dense = stories().state_dict()
    methods = [
        ALPS(**settings, propagate="none"),
        SparseGPT(**settings | NEAREST.get(settings.get("scope"), {}), propagate="none"),
        Wanda(**settings, propagate="none"),
        Magnitude(**settings),
    ]
    results = [pruned(method)[0].state_dict() for method in methods]
    for block, found in collect(states, Gram(), states.anatomy.blocks, "none"):
        for site in block.sites:
            name, gram_II = site.weight_name, found[site.table.reads]
            errors = [relative_error(dense[name], new[name], gram_II).item() for new in results]
            assert errors == sorted(errors), name
