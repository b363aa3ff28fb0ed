"""A plan says what stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.plan import Plan
from tests.plan.plans import SHAPES, full_plan, random_mask


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_come_back_as_they_were_set(shape: tuple[int, int]) -> None:
    """Packed to bits and unpacked, whatever the number of entries."""
    keep_OI = random_mask(*shape)
    plan = Plan()
    plan.set_mask("w", keep_OI)
    assert plan.mask("w").dtype == torch.bool
    assert torch.equal(plan.mask("w"), keep_OI)
    assert plan.mask_shape("w") == keep_OI.shape


def test_masks_may_lie_transposed_in_memory() -> None:
    """The layout of the mask does not matter."""
    plan, keep_OI = Plan(), random_mask(5, 3).T
    plan.set_mask("w", keep_OI)
    assert torch.equal(plan.mask("w"), keep_OI)


def test_a_plan_owns_what_it_was_given() -> None:
    """Later changes to the tensors do not reach the plan."""
    plan, kept, score = Plan(), torch.tensor([1, 2]), torch.ones(3)
    plan.set_kept("neuron", 0, kept, 3)
    plan.set_scores("neuron", 0, score)
    kept += 5
    score += 5
    assert plan.kept("neuron", 0).tolist() == [1, 2]
    assert plan.scores("neuron", 0).tolist() == [1, 1, 1]


def test_blocks_may_share_one_tensor(tmp_path: Path) -> None:
    """One index or score tensor for several blocks, and parts of one table, can be saved."""
    plan, kept, table = Plan(), torch.tensor([0, 2]), torch.arange(6.0).view(2, 3)
    for block in (0, 1):
        plan.set_kept("neuron", block, kept, 3)
        plan.set_scores("neuron", block, table[block])
    loaded = Plan.load(plan.save(tmp_path))
    assert loaded.kept("neuron", 1).tolist() == [0, 2]
    assert loaded.scores("neuron", 1).tolist() == [3, 4, 5]


def test_sparsity_is_the_fraction_of_zeros() -> None:
    """Of one weight, and of all weights by their size."""
    plan = Plan()
    assert plan.sparsity() == 0
    plan.set_mask("a", torch.tensor([[True, False, False, False]]))
    plan.set_mask("b", torch.ones(3, 4, dtype=torch.bool))
    assert plan.sparsity("a") == 0.75
    assert plan.sparsity("b") == 0
    assert plan.sparsity() == 3 / 16


def test_removes_anything_sees_weights_and_units() -> None:
    """One weight or one unit is enough; a plan that keeps all removes nothing."""
    plan = Plan()
    plan.set_mask("a", torch.ones(2, 2, dtype=torch.bool))
    plan.set_kept("neuron", 0, torch.arange(3), 3)
    assert not plan.removes_anything
    plan.set_mask("b", torch.tensor([[True, False]]))
    assert plan.removes_anything
    units = Plan()
    units.set_kept("group", 0, torch.tensor([0]), 2)
    assert units.removes_anything


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda plan: plan.mask("w.4.4"), r"no mask 'w.4.4'; it has w.1.1, .* and 2 more"),
        (lambda plan: plan.sparsity("w.4.4"), "no mask 'w.4.4'"),
        (lambda plan: plan.kept("neuron", 1), r"no 'neuron' list for block 1; .*\[0, 2\]"),
        (lambda plan: plan.kept("head", 0), "no 'head' list for block 0"),
        (lambda plan: plan.scores("group", 0), r"no group scores for 0; .*keep_scores=True"),
        (lambda plan: plan.scores("weight", "w.1.1"), r"no weight scores .*keep_scores=True"),
    ],
)
def test_what_is_missing_is_named_with_what_there_is(ask: Any, message: str) -> None:
    """A KeyError that says what the plan has, and for scores how to get them."""
    with pytest.raises(KeyError, match=message):
        ask(full_plan())


def test_a_plan_is_described_in_a_line() -> None:
    """Its tensors are not printed."""
    assert len(repr(full_plan())) < 200


# --- plans together ---


def test_the_fingerprint_is_that_of_the_decisions() -> None:
    """Where a plan comes from does not change it; one weight or unit does."""
    plan, same = full_plan(), full_plan()
    same.provenance["model"] = "another"
    same.set_scores("neuron", 2, torch.ones(22))
    assert plan.fingerprint() == same.fingerprint()
    seen = {plan.fingerprint(), full_plan(seed=1).fingerprint(), Plan().fingerprint()}
    same.set_kept("neuron", 0, torch.tensor([0, 5, 20]), 22)
    seen.add(same.fingerprint())
    assert len(seen) == 4
