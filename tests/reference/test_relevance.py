"""Relevance is what the package of AttnLRP's authors makes of the same model.

rachtibat/LRP-eXplains-Transformers f043441, patched onto transformers' Llama; the target is the
largest logit at the last token; four windows of 128 tokens; blocks 0 and 2.
"""

from __future__ import annotations

import pytest
import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import Relevance
from lightning_prune.sweep import collect
from tests.reference.stories import golden, stories, windows
from tests.sweep.helpers import states_of


@pytest.mark.parametrize(("attention", "ending"), [("eager", ""), ("sdpa", "_sdpa")])
@pytest.mark.parametrize("size", [1, 4])
def test_relevance_equals_the_authors_code(attention: str, ending: str, size: int) -> None:
    """With its sign in the mean, and of magnitudes; in one batch or one by one."""
    model = stories()
    model.set_attn_implementation(attention)  # type: ignore[operator]
    first = [{"input_ids": golden("calibration")["input_ids"][:4]}]
    data = [{"input_ids": part} for part in first[0]["input_ids"].split(size)]
    signed = golden(f"lxt_relevance_signed{ending}")
    magnitudes = golden("lxt_relevance_mean_abs")
    compared = set()
    blocks = Anatomy(model).blocks
    for _, results in collect(states_of(model, data), Relevance(magnitudes=True), blocks, "none"):
        for name in results.keys() & signed.keys():
            pairs = [
                (results[name].first_OI, signed[name]),
                (results[name].magnitude_OI, magnitudes[name]),
            ]
            for found_OI, expected_OI in pairs:
                assert (found_OI - expected_OI).norm() < 1e-4 * expected_OI.norm(), name
            compared.add(name)
    assert compared == set(signed)


def test_the_sums_of_an_mlp_are_the_authors() -> None:
    """Of gate, up and down, in every block."""
    expected_L3 = golden("lxt_forward")["sums_signed"]
    model, data = stories(), windows("calibration", 4)[:1]
    sums: dict[int, list[torch.Tensor]] = {}
    for block, results in collect(
        states_of(model, data), Relevance(), Anatomy(model).blocks, "none"
    ):
        names = [site.weight_name for site in block.sites if ".mlp." in site.name]
        sums[block.index] = [results[name].first_OI.double().sum() for name in names]
    found_L3 = torch.tensor([[float(one) for one in sums[i]] for i in sorted(sums)])
    torch.testing.assert_close(found_L3, expected_L3.float(), rtol=1e-3, atol=1e-5)
