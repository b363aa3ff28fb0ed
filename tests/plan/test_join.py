"""Two plans, one after the other, as one."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import pytest
import torch

from lightning_prune.plan import Plan, joined
from tests.plan.plans import drop_plan, full_plan, random_mask, unit_plan


def test_of_two_masks_both_hold() -> None:
    """A weight stays if both plans keep it; weights that one plan masks keep its mask."""
    first, second = Plan({"method": "A"}), Plan({"method": "B"})
    first.set_mask("both", random_mask(3, 5))
    second.set_mask("both", random_mask(3, 5, seed=1))
    first.set_mask("first", random_mask(2, 8))
    second.set_mask("second", random_mask(1, 7))
    both = joined(first, second)
    assert torch.equal(both.mask("both"), random_mask(3, 5) & random_mask(3, 5, seed=1))
    assert torch.equal(both.mask("first"), first.mask("first"))
    assert torch.equal(both.mask("second"), second.mask("second"))
    assert both.steps == [{"method": "A"}, {"method": "B"}]
    assert torch.equal(first.mask("both"), random_mask(3, 5)), "the parts stay as they were"


def test_units_cut_twice_are_counted_among_the_first_ones() -> None:
    """The second plan's indices are among those that the first one left."""
    both = joined(unit_plan([0, 2, 5, 7], 8), unit_plan([1, 3], 4))
    assert both.kept("neuron", 0).tolist() == [2, 7]
    assert both.blocks("neuron")[0].total == 8


def test_cuts_of_other_kinds_and_blocks_stand_beside_each_other() -> None:
    """And masks that follow cuts are taken over."""
    plans = [unit_plan([0], 4, "group"), unit_plan([1, 2], 8), unit_plan([3], 8, block=2)]
    cuts = reduce(joined, plans)
    masks = Plan()
    masks.set_mask("w", random_mask(3, 5))
    whole = joined(cuts, masks)
    assert whole.kept("group", 0).tolist() == [0]
    assert {i: k.index_U.tolist() for i, k in whole.blocks("neuron").items()} == {0: [1, 2], 2: [3]}
    assert whole.mask_names == ["w"]
    assert len(whole.steps) == 4


def test_blocks_are_numbered_as_in_the_dense_model() -> None:
    """Whatever earlier plans took out; their scores too."""
    cut = unit_plan([0, 2], 4, block=1)
    cut.set_scores("neuron", 1, torch.arange(4.0))
    whole = reduce(joined, [drop_plan(0, 3, of=6), drop_plan(2, of=4), cut])
    assert whole.dropped == {0, 3, 4}
    assert whole.kept("neuron", 2).tolist() == [0, 2]
    assert whole.scores("neuron", 2).tolist() == [0, 1, 2, 3]


def test_corrected_weights_are_named_as_in_the_model_that_is_left() -> None:
    """Those of blocks that went are forgotten."""
    first, later = Plan(), Plan()
    for index in range(3):
        first.set_corrected({f"model.layers.{index}.fc2.weight": torch.full((2,), float(index))})
    first.set_corrected({"lm_head.weight": torch.ones(2)})
    later.set_corrected({"model.layers.0.fc2.weight": torch.ones(3)})
    names = joined(first, drop_plan(1, of=3)).corrected
    assert names == {
        "model.layers.0.fc2.weight": first.corrected["model.layers.0.fc2.weight"],
        "model.layers.1.fc2.weight": first.corrected["model.layers.2.fc2.weight"],
        "lm_head.weight": first.corrected["lm_head.weight"],
    }
    after = joined(drop_plan(0, of=2), later)
    assert after.corrected == later.corrected


def test_plans_that_do_not_follow_each_other_are_refused() -> None:
    """Cuts after masks, other totals, other shapes."""
    masked, other = Plan(), Plan()
    masked.set_mask("w", random_mask(3, 5))
    other.set_mask("w", random_mask(2, 8))
    with pytest.raises(ValueError, match="Cut first, then mask"):
        joined(masked, unit_plan([0], 4))
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(2, 8\)"):
        joined(masked, other)
    with pytest.raises(ValueError, match="leaves 2 neuron units in block 0, .* about 4"):
        joined(unit_plan([0, 1], 8), unit_plan([0], 4))


def test_plans_together_are_saved_as_one(tmp_path: Path) -> None:
    """With the provenance of both."""
    both = joined(full_plan(0), Plan({"method": "B"}))
    loaded = Plan.load(both.save(tmp_path))
    assert loaded.steps == both.steps
    assert loaded.fingerprint() == both.fingerprint()
