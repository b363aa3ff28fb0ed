"""Importance of blocks, and shares made from it, against the original codes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from lightning_prune import CFSPSigmoid, Inverse, Proportional
from lightning_prune.allocation.by_importance import sigmoid_keep
from lightning_prune.evidence import Evidence, Removal
from lightning_prune.evidence.influence import MEASURES
from lightning_prune.sweep import collect, evaluating
from tests.reference.stories import golden, stories, windows
from tests.sweep.helpers import states_of

EQUAL = [1, 1, 1, 1, 1]


def measured(evidence: Evidence, count: int) -> list[float]:
    """Of every block, on so many windows."""
    states = states_of(stories(), windows("calibration", count)[:1])
    with evaluating(states.anatomy.model):
        sweep = collect(states, evidence, states.anatomy.blocks, "none")
        return [values["block"] for _, values in sweep]


@pytest.mark.parametrize("measure", MEASURES)
def test_influence_is_that_of_the_original_codes(measure: str) -> None:
    """CFSP's block metrics, and the norm of GQA-aware pruning (of 8 windows)."""
    values = measured(MEASURES[measure](), 8 if measure == "norm" else 16)
    name = "activation" if measure == "norm" else f"block_influence_mean.{measure}"
    expected = golden("layer_importance")[name].tolist()
    assert values == pytest.approx(expected, rel=1e-5)


def test_removal_is_that_of_the_original_code() -> None:
    """Perplexity without a block, less that of the dense model, on 8 windows."""
    values = measured(Removal(windows=0), 8)
    assert values == pytest.approx(golden("layer_importance")["removal"].tolist(), rel=1e-4)


SIGMOIDS = [f"{name}.angular" for name in ("a1_p20", "a100_p50", "a10000_p50")]
SIGMOIDS += [f"a1_p50.{measure}" for measure in ("angular", "cosine", "mse", "mae", "avg_base")]


@pytest.mark.parametrize("name", SIGMOIDS)
def test_the_sigmoid_is_that_of_cfsp(name: str) -> None:
    """With its guard; its a is for sums over tokens, here over 16 x 128 in place of 128 x 1024."""
    found = golden("cfsp_block")
    setting, measure = name.split(".")
    steepness, budget = (float(part[1:]) for part in setting.split("_"))
    importance = (found[f"importance.{measure}"] / (16 * 128)).tolist()
    keep = sigmoid_keep(budget / 100, importance, steepness / 64)
    expected = found[f"keep_ratio_{name}"].tolist()
    assert keep == pytest.approx(expected, rel=1e-5)
    shares = CFSPSigmoid(a=steepness / 64).shares(budget / 100, EQUAL, importance)
    assert sum(shares) / 5 == pytest.approx(budget / 100, abs=1e-12)
    if max(keep) < 0.95:
        assert shares == pytest.approx([1 - k for k in keep], rel=1e-5)


CASES = [
    (source, strategy, alpha, log)
    for source in ("activation", "removal")
    for strategy in ("inverse", "proportional")
    for alpha in (1, 2)
    for log in (False, True)
]


@pytest.mark.parametrize(("source", "strategy", "alpha", "log"), CASES)
def test_unbalanced_rates_are_those_of_the_original_code_as_far_as_they_meet_the_target(
    source: str, strategy: str, alpha: int, log: bool
) -> None:
    """Its wishes are ours; where its clipping misses the target, ours meets it."""
    importance = golden("layer_importance")[source].tolist()
    wishes = wishes_of(importance, strategy, alpha, log)
    expected = golden("layer_rates")[f"{source}.{strategy}.alpha{alpha}.log{int(log)}"].tolist()
    assert clipped_twice(wishes) == pytest.approx(expected, rel=1e-4)
    make = Inverse if strategy == "inverse" else Proportional
    allocation = make(alpha=alpha, log=log, min_share=0.15, max_share=0.5)
    shares = allocation.shares(0.25, EQUAL, importance)
    assert sum(shares) / 5 == pytest.approx(0.25, abs=1e-9)
    assert min(shares) >= 0.15 - 1e-12
    assert max(shares) <= 0.5 + 1e-12
    inside = [i for i, share in enumerate(shares) if 0.15 < share < 0.5]
    factors = [shares[i] / wishes[i] for i in inside]
    assert max(factors) == pytest.approx(min(factors), rel=1e-5)


def wishes_of(importance: Sequence[float], strategy: str, alpha: int, log: bool) -> list[float]:
    values = list(importance)
    if log:
        values = [math.log(x - min(importance) + 1) for x in values]
    scaled = [(x - min(values)) / (max(values) - min(values) + 1e-8) for x in values]
    powered = [x**alpha for x in scaled]
    return [1 - x for x in powered] if strategy == "inverse" else powered


def clipped_twice(wishes: Sequence[float]) -> list[float]:
    """The original rule: scale to the mean, clip, scale again, clip again."""
    rates = list(wishes)
    for _ in range(2):
        mean = sum(rates) / len(rates)
        rates = [min(max(rate * 0.25 / mean, 0.15), 0.5) for rate in rates]
    return rates
