"""Wanda, magnitude and gradients of the original research codes, met by this package.

Wanda: locuslab/wanda 8e8fc87; magnitude: the same; GQA Taylor: GAQ-Aware-Prune 07e2a6f; gradients:
LLM-Pruner 128a07d. All were run in fp32 on 16 windows of 128 tokens.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune import GQATaylor, Magnitude, Wanda
from lightning_prune.anatomy import Anatomy
from lightning_prune.evaluation import perplexity
from lightning_prune.evidence import Gradients, InputNorm
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from lightning_prune.selection import Pattern, keep_n_of_m
from lightning_prune.sweep import collect
from tests.reference.stories import golden, stories, windows
from tests.sweep.helpers import states_of


def test_the_dense_perplexity_is_the_reference_codes() -> None:
    """4.287970 by the evaluation of Wanda, SparseGPT, FLAP, CFSP and LLM-Pruner alike."""
    for size in (1, 32):
        found = perplexity(stories(), windows("evaluation", size))
        assert found == pytest.approx(4.287970, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("wanda_50", {"sparsity": 0.5}, 17.9802),
        ("wanda_30", {"sparsity": 0.3}, 5.2337),
        ("wanda_2of4", {"pattern": "2:4"}, 67.8786),
    ],
)
@pytest.mark.parametrize("size", [1, 16])
def test_wanda_equals_the_authors_code(
    name: str, settings: dict[str, Any], expected: float, size: int
) -> None:
    """The same masks on 99.99% of all weights, and the same perplexity within 0.1%."""
    model = stories()
    plan = prune(model, Wanda(**settings), windows("calibration", size))
    masks = golden(name)
    assert set(plan.mask_names) == set(masks)
    equal = sum(int((plan.mask(n) == masks[n].bool()).sum()) for n in masks)
    assert equal >= 0.9999 * sum(mask.numel() for mask in masks.values())
    found = perplexity(model, windows("evaluation", 32))
    assert found == pytest.approx(expected, rel=1e-3)


def test_wanda_4of8_refuses_a_width_of_172() -> None:
    """The authors' code removes the whole short last group of four inputs there."""
    with pytest.raises(ValueError, match=r"4:8 needs .* divisible by 8; .*down_proj has 172"):
        prune(stories(), Wanda(pattern="4:8"), windows("calibration", 16))


def test_4of8_equals_the_authors_code_where_8_divides_the_width() -> None:
    """Magnitude looks at each weight alone, so that sites can be compared one by one."""
    compared = 0
    for block in Anatomy(stories()).blocks:
        for site in block.sites:
            if site.module.in_features % 8 == 0:
                keep_OI = keep_n_of_m(site.module.weight.abs(), Pattern(4, 8))
                assert torch.equal(keep_OI, golden("magnitude_4of8")[site.weight_name].bool())
                compared += 1
    assert compared == 30


def test_magnitude_2of4_equals_the_authors_code() -> None:
    """Every mask, and the perplexity."""
    model = stories()
    plan = prune(model, Magnitude(pattern="2:4"))
    for name, mask in golden("magnitude_2of4").items():
        assert torch.equal(plan.mask(name), mask.bool()), name
    assert perplexity(model, windows("evaluation", 32)) == pytest.approx(117.2901, rel=1e-3)


def test_magnitude_50_keeps_one_weight_more_than_the_authors_code() -> None:
    """Its rule |w| <= sorted[n / 2] also takes the weight at the threshold; ours stops at n / 2."""
    model = stories()
    dense = {n: p.detach().clone() for n, p in model.named_parameters()}
    plan = prune(model, Magnitude(sparsity=0.5))
    for name, mask in golden("magnitude_50").items():
        ours, theirs = plan.mask(name), mask.bool()
        assert int((~ours).sum()) == ours.numel() // 2
        assert not (theirs & ~ours).any()  # whatever they keep, we keep
        extra = dense[name][ours & ~theirs].abs()
        assert extra.numel() == 1, name
        assert float(extra) == float(dense[name][ours].abs().min())
    assert perplexity(model, windows("evaluation", 32)) == pytest.approx(40.3273, rel=5e-3)


@pytest.mark.parametrize("size", [1, 5, 16])
def test_input_norms_are_wandas_statistic(size: int) -> None:
    """Its s_j is the mean over N sequences of the sum of squares: ||X_j||² = N · s_j."""
    states = states_of(stories(), windows("calibration", size))
    statistic = golden("wanda_stats_dense")
    for block, evidence in collect(states, InputNorm(), states.anatomy.blocks, "none"):
        for site in block.sites:
            norm_I = evidence[site.table.reads]
            torch.testing.assert_close(
                norm_I.square() / 16, statistic[site.weight_name], rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize("size", [1, 16])
def test_gradients_are_those_of_one_backward_pass(size: int) -> None:
    """The gradient of the mean loss over all windows, in two reference codes."""
    states = states_of(stories(), windows("calibration", size))
    for block, evidence in collect(
        states, Gradients(squares=True), states.anatomy.blocks[:1], "none"
    ):
        assert block.index == 0
        for name, one in evidence.items():
            for file in ("gqa_taylor_grads_layer0", "llmpruner_grads_layer0"):
                gradient_OI = golden(file)[f"{name}.grad"]
                expected_OI = one.weight_OI * gradient_OI
                limit = 1e-5 * float(expected_OI.abs().max())
                torch.testing.assert_close(one.first_OI, expected_OI, rtol=1e-3, atol=limit)
            square_OI = golden("llmpruner_grads_layer0")[f"{name}.acc_grad"]
            limit = 1e-5 * float(square_OI.max())
            torch.testing.assert_close(one.square_OI, square_OI, rtol=1e-3, atol=limit)


def taylor_plan(ratio: float, size: int) -> Plan:
    method = GQATaylor(ratio=ratio, keep_scores=True)
    return prune(stories(), method, windows("calibration", size))


@pytest.mark.parametrize("size", [1, 16])
def test_gqa_taylor_scores_equal_the_authors_code(size: int) -> None:
    """Groups and neurons within 1e-4 relative, in one batch or window by window."""
    plan, expected = taylor_plan(0.25, size), golden("gqa_taylor")
    for block in range(5):
        for kind, name in (("group", "group_importance"), ("neuron", "mlp_importance")):
            torch.testing.assert_close(
                plan.scores(kind, block), expected[name][block], rtol=1e-4, atol=0
            )


@pytest.mark.parametrize("rate", [25, 50])
def test_gqa_taylor_keeps_the_same_groups_as_the_authors_code(rate: int) -> None:
    """One of four groups goes at 25%, two at 50%."""
    plan = taylor_plan(rate / 100, 16)
    for block, kept in enumerate(golden("gqa_taylor")[f"kept_kv_groups_rate{rate}"].tolist()):
        assert plan.kept("group", block).tolist() == sorted(kept)


def test_gqa_taylor_keeps_the_highest_neurons() -> None:
    """43 of 172 go at 25%, and they are the lowest of the reference scores."""
    plan, expected = taylor_plan(0.25, 16), golden("gqa_taylor")["mlp_importance"]
    for block in range(5):
        highest = expected[block].topk(172 - 43).indices.sort().values
        assert plan.kept("neuron", block).tolist() == highest.tolist()
