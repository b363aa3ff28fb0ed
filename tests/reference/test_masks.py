"""Masks of Wanda's variant, RIA and OWL by the authors' codes, met by this package.

locuslab/wanda 8e8fc87 (use_variant), Relative-importance-and-activation-pruning 7bc55b0,
luuyin/OWL dddb7a4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from lightning_prune import OWL, RIA, Wanda
from lightning_prune.anatomy import Block
from lightning_prune.evidence import InputNorm
from lightning_prune.methods.base import Decision
from lightning_prune.scores.ria import ria_score
from lightning_prune.selection import Pattern, keep_permuted
from lightning_prune.selection.permutation import dealt
from lightning_prune.sweep import collect
from tests.reference.stories import (
    different_masks,
    golden,
    perplexity_of,
    pruned,
    stories,
    windows,
)
from tests.sweep.helpers import states_of


def dense_norms() -> dict[str, torch.Tensor]:
    """By weight name, the norms of its input in the dense model."""
    states = states_of(stories(), windows("calibration", 16))
    return {
        site.weight_name: found[site.table.reads]
        for block, found in collect(states, InputNorm(), states.anatomy.blocks, "none")
        for site in block.sites
    }


class WandaAtLevel(Wanda):
    """Remove what lies below the level at which the authors' bisection ended, in each matrix."""

    def select(self, block: Block, scores: Mapping[str, torch.Tensor], share: float) -> Decision:
        levels = {name: golden("wanda_variant_alpha")[name][0] for name in scores}
        return Decision({name: score > levels[name] for name, score in scores.items()})


def test_adaptive_scores_below_the_authors_level_are_what_they_remove() -> None:
    """In all blocks, each behind those that were pruned so; their level is within 0.1%."""
    model, plan = pruned(WandaAtLevel(sparsity=0.5, adaptive=True))
    assert different_masks(plan, "wanda_variant_50") == 0
    for name, (_, sparsity) in golden("wanda_variant_alpha").items():
        assert plan.sparsity(name) == pytest.approx(float(sparsity), abs=1e-6)
    assert perplexity_of(model) == pytest.approx(17.7414, rel=1e-3)


def test_adaptive_wanda_reaches_the_sparsity_exactly() -> None:
    """Half of every matrix, where theirs stops short of it by up to 0.1%; rows differ."""
    model, plan = pruned(Wanda(sparsity=0.5, adaptive=True))
    for name in plan.mask_names:
        keep_OI = plan.mask(name)
        assert int((~keep_OI).sum()) == keep_OI.numel() // 2
        assert len(set(keep_OI.sum(dim=1).tolist())) > 1
    assert perplexity_of(model) == pytest.approx(17.7414, rel=0.02)


def test_ria_scores_are_the_authors() -> None:
    """With a = 0.5. Their norms are means over 16 windows: smaller by 16^(a / 2) = 2."""
    norms, state = dense_norms(), stories().state_dict()
    for name, expected_OI in golden("ria_scores_layer0").items():
        score_OI = ria_score(state[name], norms[name]) / 2
        torch.testing.assert_close(score_OI, expected_OI, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("ria_50_row", {"sparsity": 0.5}, 20.2576),
        ("ria_50_matrix", {"sparsity": 0.5, "scope": "matrix", "ties": "reference"}, 25.3960),
        ("ria_2of4", {"pattern": "2:4"}, 67.9798),
        ("ria_2of4_reallocation_lsa", {"pattern": "2:4", "permute": "virtual"}, 37.4821),
    ],
)
def test_ria_equals_the_authors_code(name: str, settings: dict[str, Any], expected: float) -> None:
    """Every mask, also that of permuted inputs, and the perplexity."""
    model, plan = pruned(RIA(**settings))
    assert different_masks(plan, name) == 0
    assert perplexity_of(model) == pytest.approx(expected, rel=1e-3)


def test_dealing_inputs_equals_the_authors_heuristic() -> None:
    """Their channel reallocation without linear sum assignment, on the scores of block 0."""
    pattern = Pattern(2, 4)
    for name, score_OI in golden("ria_scores_layer0").items():
        keep_OI = keep_permuted(score_OI, pattern, dealt(score_OI, pattern.group))
        assert torch.equal(keep_OI, golden("ria_2of4_reallocation")[name].bool()), name


@pytest.mark.parametrize(("sparsity", "expected"), [(0.5, 15.2035), (0.7, 114.7141)])
def test_owl_with_wanda_equals_the_authors_code(sparsity: float, expected: float) -> None:
    """Masks of every Linear, and the perplexity."""
    model, plan = pruned(Wanda(sparsity=sparsity, allocation=OWL()))
    assert different_masks(plan, f"owl_wanda_p{round(100 * sparsity)}") == 0
    assert perplexity_of(model) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("sparsity", [0.5, 0.7])
def test_owl_keeps_what_the_authors_code_keeps(sparsity: float) -> None:
    """Outliers on the dense model, then the shares of the blocks."""
    rate, owl = f"p{round(100 * sparsity)}", OWL()
    states = states_of(stories(), windows("calibration", 16))
    outliers = [
        value
        for block, found in collect(states, owl.evidence, states.anatomy.blocks, "none")
        for value in owl.measured(block, found)
    ]
    theirs = golden("owl")[f"outlier_percent.{rate}"]
    torch.testing.assert_close(torch.tensor(outliers).double() * 100, theirs, rtol=0, atol=1e-5)
    keep = [1 - share for share in owl.shares(sparsity, [1] * 5, outliers)]
    for source, limit in (("printed", 1e-7), ("from_printed_outliers", 1e-7)):
        expected = golden("owl")[f"keep_{source}.{rate}"].tolist()
        assert keep == pytest.approx(expected, abs=limit)
