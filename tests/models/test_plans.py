"""The plans that a module carries."""

from __future__ import annotations

import pytest
import torch

from lightning_prune import CausalLM, Magnitude, Plan, prune
from lightning_prune.models.plans import Plans
from lightning_prune.plan import joined
from tests.models.test_causal_lm import CONFIG
from tests.tiny import tiny_model, tiny_plan


def cut_and_masked() -> list[Plan]:
    """Of one model: a block is taken out, and what is left is masked."""
    model = tiny_model("llama")
    cut = tiny_plan(model, block={1: []})
    prune(model, Magnitude(sparsity=0.5, plan=cut))
    return [cut, prune(model, Magnitude(sparsity=0.5))]


def test_plans_are_merged_when_one_is_added_and_not_when_they_are_read() -> None:
    """A read is an attribute: all readers see the same plan."""
    first, second = cut_and_masked()
    module = CausalLM(config=CONFIG)
    assert module.plan is None
    module.plans.append(first)
    assert module.plan is first
    module.plans.append(second)
    assert module.plan is module.plan is module.plans.merged
    assert module.plan.fingerprint() == joined(first, second).fingerprint()
    assert module.plan.steps == [first.provenance, second.provenance]


def test_they_are_read_like_a_list() -> None:
    """In the order in which they were added."""
    first, second = cut_and_masked()
    plans = Plans()
    assert not plans
    assert plans.dropped == set()
    plans.append(first)
    plans.append(second)
    assert list(plans) == [first, second]
    assert (plans[-1], plans[:1], len(plans)) == (second, [first], 2)
    assert plans.dropped == {1}


def test_a_plan_that_does_not_follow_is_not_added() -> None:
    """What was there stays as it was."""
    plans, mask = Plans(), Plan()
    mask.set_mask("weight", torch.ones(2, 2, dtype=torch.bool))
    plans.append(mask)
    with pytest.raises(ValueError, match="Cut first, then mask"):
        plans.append(tiny_plan(tiny_model("llama"), neuron={0: [1]}))
    assert (list(plans), plans.merged) == ([mask], mask)
