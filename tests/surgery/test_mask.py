"""Zeros in weights."""

from __future__ import annotations

import pytest
import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.plan import Plan
from lightning_prune.surgery import apply, apply_masks, mask_block, mask_units
from tests.tiny import tiny_model, tiny_plan

UP = "model.layers.0.mlp.up_proj.weight"


def checkered(model: torch.nn.Module, name: str) -> Plan:
    plan, weight_OI = Plan(), model.get_parameter(name)
    plan.set_mask(name, (torch.arange(weight_OI.numel()) % 2 == 0).view_as(weight_OI))
    return plan


def test_masked_weights_are_zero_and_kept_ones_unchanged() -> None:
    """Exactly the entries that the mask does not keep become zero."""
    model = tiny_model("llama")
    before_OI, plan = model.get_parameter(UP).detach().clone(), checkered(model, UP)
    apply_masks(model, plan)
    torch.testing.assert_close(model.get_parameter(UP), before_OI * plan.mask(UP), rtol=0, atol=0)


def test_masks_remove_what_is_not_a_number() -> None:
    """A pruned weight is zero even if it was infinite."""
    model = tiny_model("llama")
    plan = checkered(model, UP)
    with torch.no_grad():
        model.get_parameter(UP)[~plan.mask(UP)] = torch.inf
    apply_masks(Anatomy(model), plan)
    assert (model.get_parameter(UP)[~plan.mask(UP)] == 0).all()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.layers.9.mlp.up_proj.weight", (22, 32), "has no such weight"),
        (UP, (22, 30), r"shape \(22, 30\), the model's weight \(22, 32\)"),
    ],
)
def test_a_mask_that_does_not_fit_changes_nothing(
    name: str, shape: tuple[int, int], message: str
) -> None:
    """The refusal comes before the first weight is touched."""
    model = tiny_model("llama")
    plan = checkered(model, "model.layers.0.mlp.gate_proj.weight")
    plan.set_mask(name, torch.ones(shape, dtype=torch.bool))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        apply_masks(model, plan)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_apply_masks_then_cuts() -> None:
    """A plan with masks of the dense shapes and cuts is applied in one go."""
    model = tiny_model("llama")
    plan = tiny_plan(model, neuron={0: [1, 3, 4]})
    mask_OI = torch.rand(22, 32, generator=torch.Generator().manual_seed(0)) > 0.5
    plan.set_mask(UP, mask_OI)
    want = (model.get_parameter(UP).detach() * mask_OI)[[1, 3, 4]]
    apply(Anatomy(model), plan)
    torch.testing.assert_close(model.get_parameter(UP).detach(), want, rtol=0, atol=0)


def test_apply_checks_masks_and_cuts_before_it_changes_anything() -> None:
    """A cut that does not fit leaves the weights unmasked too."""
    model = tiny_model("llama")
    plan = checkered(model, UP)
    plan.set_kept("neuron", 0, torch.tensor([0]), total=21)
    before = model.get_parameter(UP).detach().clone()
    with pytest.raises(ValueError, match="about 21 neuron units"):
        apply(Anatomy(model), plan)
    torch.testing.assert_close(model.get_parameter(UP).detach(), before, rtol=0, atol=0)


def test_a_block_is_masked_as_the_whole_model_is() -> None:
    """One block at a time gives the weights that all at once give."""
    at_once, in_turn = tiny_model("phi3"), tiny_model("phi3")
    kept = {"neuron": [0, 21], "group": [1, 3]}
    plan = tiny_plan(at_once, **{kind: {1: units} for kind, units in kept.items()})
    name = "model.layers.1.mlp.down_proj.weight"
    keep_OI = checkered(at_once, name).mask(name)
    plan.set_mask(name, keep_OI)
    apply_masks(at_once, plan)
    mask_units(Anatomy(at_once), plan)
    index = {kind: torch.tensor(units) for kind, units in kept.items()}
    mask_block(Anatomy(in_turn).blocks[1], {name: keep_OI}, index)
    torch.testing.assert_close(
        dict(in_turn.state_dict()), dict(at_once.state_dict()), rtol=0, atol=0
    )
