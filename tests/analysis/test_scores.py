"""Scores of plans: what is paired with what, samples, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_prune.analysis import statistics
from lightning_prune.analysis.keys import short_names
from lightning_prune.analysis.scores import compare_scores
from lightning_prune.analysis.statistics import spearman
from lightning_prune.plan import Plan

UNITS = 12
WEIGHT = "model.layers.{}.mlp.up_proj.weight"


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def unit_plan(method: str, seed: int, blocks: int = 3, components: bool = False) -> Plan:
    """A plan that keeps, in every block, the 8 of 12 neurons with the highest scores."""
    plan = Plan({"method": method})
    for block in range(blocks):
        score_U = random(UNITS, seed=seed + block)
        if components:
            first_U = random(UNITS, seed=100 + block)
            plan.set_scores("neuron/Feature", block, first_U)
            plan.set_scores("neuron/NextToken", block, score_U - first_U)
        plan.set_scores("neuron", block, score_U)
        plan.set_kept("neuron", block, score_U.topk(8).indices.sort().values, UNITS)
    return plan


def weight_plan(method: str, seed: int, blocks: int = 2) -> Plan:
    plan = Plan({"method": method})
    for block in range(blocks):
        score_OI = random(6, 8, seed=seed + block)
        plan.set_scores("weight", WEIGHT.format(block), score_OI)
        plan.set_mask(WEIGHT.format(block), score_OI > 0.5)
    return plan


def test_component_scores_survive_saving(tmp_path: Path) -> None:
    """A kind may have a slash in it, and a weight's name dots."""
    plan = unit_plan("AFR", seed=0, components=True)
    plan.set_scores("weight/Feature", WEIGHT.format(0), torch.ones(2, 3))
    read = Plan.load(plan.save(tmp_path))
    assert sorted(read.score_keys) == sorted(plan.score_keys)
    for kind, key in plan.score_keys:
        torch.testing.assert_close(read.scores(kind, key), plan.scores(kind, key))


def test_two_plans_are_compared_by_block_and_over_all(tmp_path: Path) -> None:
    """The figures of each block are its own; those of all are over the scores put together."""
    first, second = unit_plan("ReFer", seed=0), unit_plan("SNIP", seed=50)
    report = compare_scores(first.save(tmp_path / "a"), second.save(tmp_path / "b"))
    (pair,) = report.pairs
    assert (pair.a.label, pair.b.label) == ("A ReFer", "B SNIP")
    assert list(pair.agreements) == ["0", "1", "2", "all"]
    a_U, b_U = first.scores("neuron", 1), second.scores("neuron", 1)
    assert pair.agreements["1"].spearman == spearman(a_U, b_U)
    a_N, b_N = (torch.cat([p.scores("neuron", i) for i in range(3)]) for p in (first, second))
    assert pair.agreements["all"].spearman == spearman(a_N, b_N)
    assert pair.agreements["all"].count == 3 * UNITS


def test_overlap_is_of_what_the_plans_keep(tmp_path: Path) -> None:
    """Counted in each block, and summed."""
    first, second = unit_plan("ReFer", seed=0), unit_plan("SNIP", seed=50)
    (pair,) = compare_scores(first.save(tmp_path / "a"), second.save(tmp_path / "b")).pairs
    kept = [
        (set(first.kept("neuron", i).tolist()), set(second.kept("neuron", i).tolist()))
        for i in range(3)
    ]
    overlap = pair.agreements["0"].overlap
    assert overlap is not None
    assert overlap.both == len(kept[0][0] & kept[0][1])
    whole = pair.agreements["all"].overlap
    assert whole is not None
    assert (whole.a, whole.b, whole.total) == (24, 24, 36)
    assert whole.both == sum(len(a & b) for a, b in kept)


def test_components_of_one_plan_are_compared_with_each_other(tmp_path: Path) -> None:
    """Every two of them; a component would keep as many as the plan does, its highest."""
    plan = unit_plan("AFR", seed=0, components=True)
    report = compare_scores(plan.save(tmp_path))
    assert [(p.a.label, p.b.label) for p in report.pairs] == [
        ("AFR", "AFR Feature"),
        ("AFR", "AFR NextToken"),
        ("AFR Feature", "AFR NextToken"),
    ]
    first_U = plan.scores("neuron/Feature", 0)
    would = set(first_U.topk(8).indices.tolist())
    overlap = report.pairs[0].agreements["0"].overlap
    assert overlap is not None
    assert overlap.both == len(would & set(plan.kept("neuron", 0).tolist()))


def test_scores_of_different_units_are_not_mixed(tmp_path: Path) -> None:
    """Neurons are compared with neurons, groups with groups."""
    plan = unit_plan("Taylor", seed=0)
    plan.set_scores("group", 0, torch.rand(4))
    report = compare_scores(plan.save(tmp_path / "a"))
    assert report.pairs == []
    assert {table.kind for table, _ in report.distributions} == {"neuron", "group"}
    pairs = compare_scores(plan.save(tmp_path / "a"), plan.save(tmp_path / "b")).pairs
    assert sorted((p.a.kind, p.b.kind) for p in pairs) == [("group", "group"), ("neuron", "neuron")]


def test_weights_are_compared_matrix_by_matrix_in_order(tmp_path: Path) -> None:
    """Block 10 comes after block 2, whatever the order on disk."""
    first, second = weight_plan("Wanda", 0, blocks=11), weight_plan("RIA", 50, blocks=11)
    (pair,) = compare_scores(first.save(tmp_path / "a"), second.save(tmp_path / "b")).pairs
    assert list(pair.agreements) == [*(WEIGHT.format(i) for i in range(11)), "all"]
    name = WEIGHT.format(10)
    overlap = pair.agreements[name].overlap
    assert overlap is not None
    assert overlap.both == int((first.mask(name) & second.mask(name)).sum())


def test_blocks_that_only_one_plan_has_are_left_out(tmp_path: Path) -> None:
    """As where one method left the first and last blocks alone."""
    first, second = unit_plan("ReFer", seed=0), unit_plan("SNIP", seed=50, blocks=2)
    (pair,) = compare_scores(first.save(tmp_path / "a"), second.save(tmp_path / "b")).pairs
    assert list(pair.agreements) == ["0", "1", "all"]


def test_scores_without_a_decision_have_no_overlap(tmp_path: Path) -> None:
    """They correlate all the same; so where units were cut since."""
    first, second = unit_plan("ReFer", seed=0), unit_plan("SNIP", seed=50)
    first.set_scores("neuron", 3, torch.rand(UNITS))
    second.set_scores("neuron", 3, torch.rand(UNITS))
    second.set_kept("neuron", 1, torch.arange(4), 20)
    (pair,) = compare_scores(first.save(tmp_path / "a"), second.save(tmp_path / "b")).pairs
    missing = [key for key, found in pair.agreements.items() if found.overlap is None]
    assert missing == ["1", "3", "all"]


def test_large_scores_are_sampled_in_the_same_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that agree entirely still do, and counts are those of all."""
    plan = weight_plan("Wanda", 0)
    folder = plan.save(tmp_path / "a")
    whole = compare_scores(folder, folder)
    monkeypatch.setattr(statistics, "SAMPLE", 40)
    sampled = compare_scores(folder, folder)
    for report in (whole, sampled):
        assert report.pairs[0].agreements["all"].spearman == pytest.approx(1)
        assert report.pairs[0].agreements["all"].count == 96
        assert report.distributions[0][1]["all"].count == 96
    assert sum(sampled.distributions[0][1]["all"].histogram) == 40
    assert compare_scores(folder, folder).to_dict() == sampled.to_dict()


def test_json_has_no_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    """Constant scores correlate with nothing: null."""
    plan = unit_plan("Zero", seed=0)
    for block in range(3):
        plan.set_scores("neuron", block, torch.zeros(UNITS))
    folder = plan.save(tmp_path)
    text = json.dumps(compare_scores(folder, folder).to_dict(), allow_nan=False)
    found = json.loads(text)["pairs"][0]["agreement"]["all"]
    assert (found["pearson"], found["cosine"]) == (None, None)
    assert found["overlap"]["jaccard"] == 1


def test_names_are_shortened_by_what_they_share() -> None:
    """Of blocks nothing is taken off, nor of a name that stands alone."""
    keys = [WEIGHT.format(0), "model.layers.1.self_attn.q_proj.weight", "all"]
    assert list(short_names(keys).values()) == ["0.mlp.up_proj", "1.self_attn.q_proj", "all"]
    assert list(short_names(["0", "1", "all"]).values()) == ["0", "1", "all"]
    assert list(short_names(["0", "all"]).values()) == ["0", "all"]


# --- what cannot be compared ---


def test_plans_without_scores_are_refused(tmp_path: Path) -> None:
    """It is said how to get them."""
    plan = Plan()
    plan.set_kept("neuron", 0, torch.arange(3), 4)
    with pytest.raises(ValueError, match=r"keeps no scores\. .*keep_scores=True"):
        compare_scores(plan.save(tmp_path))


def test_scores_of_other_units_or_blocks_are_refused(tmp_path: Path) -> None:
    """The kinds, or blocks, that each has are named."""
    units, weights = unit_plan("SNIP", seed=0), weight_plan("Wanda", seed=0)
    units.save(tmp_path / "units")
    weights.save(tmp_path / "weights")
    with pytest.raises(
        ValueError, match="no scores of the same kind: .* has neuron, .* has weight"
    ):
        compare_scores(tmp_path / "units", tmp_path / "weights")
    other = Plan({"method": "FLAP"})
    other.set_scores("neuron", 7, torch.rand(UNITS))
    with pytest.raises(ValueError, match="none of the same block: the one of 0, 1, 2, the other"):
        compare_scores(tmp_path / "units", other.save(tmp_path / "other"))


def test_scores_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Both shapes and the place are named."""
    first, second = unit_plan("SNIP", seed=0), unit_plan("FLAP", seed=1)
    second.set_scores("neuron", 1, torch.rand(9))
    first.save(tmp_path / "a")
    with pytest.raises(ValueError, match=r"scores of 1 have shape \(12,\) in A SNIP and \(9,\) in"):
        compare_scores(tmp_path / "a", second.save(tmp_path / "b"))
