"""What the methods are for: less error of a layer's output, in the order of their cost."""

from __future__ import annotations

import pytest

from lightning_prune.repair import alps, hessian_factor, obs_prune
from tests.repair.problems import (
    COLUMNS,
    LINEARS,
    SETTINGS,
    by_saliency,
    golden,
    obs_update,
    refit,
    relative_error,
)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("linear", LINEARS)
def test_alps_sparsegpt_wanda_magnitude(linear: str, setting: str) -> None:
    """On real activations, all with the same scope, the errors stand in the papers' order."""
    weight_OI = golden("alps_linear")[f"{linear}.dense"]
    gram_II = golden("alps_linear")[f"{linear}.gram_fp64"]
    keep = SETTINGS[setting]
    wanda_OI = keep(weight_OI.abs() * gram_II.diagonal().sqrt())
    factor = hessian_factor(gram_II)
    results = [
        alps(weight_OI, gram_II, keep)[0],
        obs_prune(weight_OI, factor, by_saliency(keep), COLUMNS[setting])[0],
        weight_OI * wanda_OI,
        weight_OI * keep(weight_OI.abs()),
    ]
    errors = [relative_error(weight_OI, new_OI, gram_II).item() for new_OI in results]
    assert errors == sorted(errors)

    updated = relative_error(weight_OI, obs_update(weight_OI, wanda_OI, factor), gram_II)
    fitted = relative_error(weight_OI, refit(weight_OI, wanda_OI, gram_II), gram_II)
    assert fitted < updated < errors[2]
