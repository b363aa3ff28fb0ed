"""CFSP's neuron scores and kept neurons, and the sizes of units of LLM-Pruner's l1 and l2.

wyxscir/CFSP b2d5b13 and horseee/LLM-Pruner 128a07d, in fp32 on 16 windows of 128 tokens. CFSP's
norm is the root of the mean over windows of the sum of squares, so ours is 4 times as large.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from lightning_prune import CFSP
from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import InputNorm
from lightning_prune.scores.magnitude import unit_norm
from lightning_prune.sweep import collect
from tests.reference.stories import golden, stories, windows
from tests.sweep.helpers import states_of


@cache
def norms() -> list[dict[str, torch.Tensor]]:
    states = states_of(stories(), windows("calibration", 16))
    sweep = collect(states, InputNorm(), states.anatomy.blocks, "none")
    return [{name: norm_I / 4 for name, norm_I in evidence.items()} for _, evidence in sweep]


def scores(metric: Any, **settings: Any) -> torch.Tensor:
    """Of every neuron of every block, (L, U)."""
    method = CFSP(ratio=0.5, metric=metric, **settings)
    blocks = Anatomy(stories()).blocks
    return torch.stack([method.score(b, norms()[b.index])["neuron"] for b in blocks])


@pytest.mark.parametrize(
    "metric", ["three_w_one_wa", "three_w_one_a", "one_wa", "one_a", "wanda_base"]
)
def test_scores_equal_cfsps_code(metric: str) -> None:
    """Those that normalise over the hidden size only with formula="code"."""
    expected_LU = golden("cfsp_neuron_scores")[metric]
    torch.testing.assert_close(scores(metric, formula="code"), expected_LU, rtol=1e-4, atol=0)
    differs = (scores(metric) - expected_LU).abs().max() > 0.01 * expected_LU.max()
    assert differs == (metric != "wanda_base")


@pytest.mark.parametrize("metric", ["three_w_one_wa", "three_w_one_a", "one_wa", "one_a"])
def test_cfsps_code_knows_activations_alone(metric: str) -> None:
    """By its formula the weights cancel: the order is that of the norms; by the paper's not."""
    for formula in ("code", "paper"):
        in_order = True
        for block, score_U in zip(
            Anatomy(stories()).blocks, scores(metric, formula=formula), strict=True
        ):
            norm_U = norms()[block.index][block.reader("neuron").site.table.reads]
            steps_U = score_U[norm_U.argsort()].diff()
            in_order &= bool(steps_U.min() > -1e-5 * score_U.max())
        assert in_order == (formula == "code")


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("three_w_one_wa.angular", "a1_p50.angular"),
        ("three_w_one_wa.angular.p20", "a1_p20.angular"),
        ("three_w_one_wa.angular.a100", "a100_p50.angular"),
        ("three_w_one_wa.angular.a10000", "a10000_p50.angular"),
        ("three_w_one_wa.cosine", "a1_p50.cosine"),
        ("three_w_one_wa.mse", "a1_p50.mse"),
        ("three_w_one_wa.mae", "a1_p50.mae"),
        ("three_w_one_wa.avg_base", "a1_p50.avg_base"),
        ("one_wa.angular", "a1_p50.angular"),
        ("one_a.angular", "a1_p50.angular"),
        ("wanda_base.angular", "a1_p50.angular"),
    ],
)
def test_the_highest_neurons_are_those_that_cfsps_code_keeps(name: str, ratio: str) -> None:
    """It keeps one more than int(172 · keep) in every block."""
    score_LU = scores(name.partition(".")[0], formula="code")
    kept = (172 * golden("cfsp_block")[f"keep_ratio_{ratio}"]).int() + 1
    for score_U, count, mask_U in zip(
        score_LU, kept.tolist(), golden("cfsp_kept_mask")[name].bool(), strict=True
    ):
        highest = score_U.topk(count).indices.sort().values
        assert highest.tolist() == mask_U.nonzero().flatten().tolist()


@pytest.mark.parametrize("power", [1, 2])
def test_unit_norms_are_llm_pruners(power: int) -> None:
    """Theirs is the mean of the three parts of a neuron, without the root."""
    for block in Anatomy(stories()).blocks:
        expected_U = golden("llmpruner_scores")[f"mlp.l{power}"][block.index]
        found_U = unit_norm(block, "neuron", power).pow(power) / 3
        torch.testing.assert_close(found_U, expected_U, rtol=1e-4, atol=0)
