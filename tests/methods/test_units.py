"""What the family of methods that cut units has in common."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune import FLAP, GlobalStandardised, MagnitudeSP, Uniform, WandaSP
from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import Moments
from tests.contract.cases import even_model
from tests.scores.by_hand import random
from tests.tiny import tiny_model

IMPOSSIBLE = {
    *((0.1, 0.3), (0.1, 0.6), (0.1, 0.9), (0.3, 0.6), (0.3, 0.9)),  # more groups than the budget
    *((0.6, 0.0), (0.6, 0.1), (0.6, 0.3)),  # more than all neurons
    *((0.9, share) for share in (0.0, 0.1, 0.3, 0.6, 0.9)),  # one unit of each kind stays
}


@pytest.mark.parametrize("allocation", [Uniform(), GlobalStandardised()], ids=repr)
@pytest.mark.parametrize("attention_ratio", [0.0, 0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6, 0.9])
def test_a_share_of_groups_meets_the_budget_or_is_refused(
    ratio: float, attention_ratio: float, allocation: Any
) -> None:
    """Within half a neuron a block; never silently off because whole groups took too much."""
    method = WandaSP(ratio=ratio, allocation=allocation, attention_ratio=attention_ratio)
    anatomy = Anatomy(even_model("llama"))
    pools = method.pools(anatomy.blocks)
    scores: dict[int, dict[str, torch.Tensor]] = {}
    for pool in pools:
        scores.setdefault(pool.block, {})[pool.kind] = random(pool.units, seed=pool.block)
    if (ratio, attention_ratio) in IMPOSSIBLE:
        with pytest.raises(ValueError, match="neurons can make up for|can go"):
            method.check(anatomy)
        return
    method.check(anatomy)
    shares = dict.fromkeys(scores, ratio)
    decisions = method.decide(anatomy.blocks, scores, shares, ratio)
    gone = sum(
        (pool.units - len(decisions[pool.block].kept[pool.kind])) * pool.size for pool in pools
    )
    neuron = min(pool.size for pool in pools)
    asked = ratio * sum(pool.parameters for pool in pools)
    assert abs(gone - asked) <= len(anatomy.blocks) * neuron / 2


@pytest.mark.parametrize("method", [FLAP(ratio=0.5), WandaSP(ratio=0.5), MagnitudeSP(ratio=0.5)])
@pytest.mark.parametrize("groups", [1, 0])
def test_blocks_with_one_group_or_none_have_scores(groups: int, method: Any) -> None:
    """One key/value head, and attention that was dropped before: finite, one a unit."""
    block = Anatomy(tiny_model("llama", num_key_value_heads=1)).blocks[0]
    if groups == 0:
        for site in block.sites:
            rows, columns = site.table.rows, site.table.columns
            if columns == "query":
                site.module.weight.data = site.module.weight.data[:, :0]
                site.module.in_features = 0
            elif "neuron" not in (*rows, columns):
                site.module.weight.data = site.module.weight.data[:0]
                site.module.out_features = 0
    evidence: dict[str, Any] = {}
    for kind in ("group", "neuron"):
        site, norm_I = block.reader(kind).site, random(block.reader(kind).site.module.in_features)
        one = Moments(norm_I, norm_I.abs(), norm_I.abs())
        evidence[site.table.reads] = one if isinstance(method, FLAP) else one.norm_I
    scores = method.score(block, evidence)
    assert {kind: score_U.numel() for kind, score_U in scores.items()} == {
        kind: block.units(kind) for kind in ("group", "neuron") if block.units(kind)
    }
    assert all(torch.isfinite(score_U).all() for score_U in scores.values())
