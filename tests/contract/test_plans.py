"""Saved plans of every method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_prune import Uniform
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.pipeline import prune
from tests.contract.cases import (
    CASES,
    METHODS,
    Case,
    assert_same_state,
    batches,
    even_model,
    pruned,
    state,
)
from tests.contract.marks import (
    every_case,
    every_method,
    in_turn,
    unit_cases,
)
from tests.sweep.helpers import counting_blocks
from tests.tiny import MODEL_TYPES, tiny_batch


@pytest.mark.parametrize(
    ("case", "model_type"), list(in_turn(CASES, ["llama", "phi3", "opt"], 2)), ids=str
)
def test_a_saved_plan_gives_the_identical_model(
    case: Case, model_type: str, tmp_path: Path
) -> None:
    """Without calibration, without a forward pass, from a folder or from memory."""
    model, plan = pruned(case, model_type)
    plan.save(tmp_path, model)
    for saved in (str(tmp_path) if model_type == "llama" else tmp_path, plan):
        again = even_model(model_type)
        with counting_blocks(again) as seen:
            prune(again, case.cls(plan=saved))
        assert seen == []
        assert_same_state(again, state(model))


@every_case
@pytest.mark.parametrize(
    "overrides", [{"hidden_size": 40}, {"num_hidden_layers": 2}], ids=["wider", "fewer blocks"]
)
def test_a_plan_for_another_model_is_refused(case: Case, overrides: dict[str, int]) -> None:
    """And nothing is changed, although its first blocks might fit."""
    _, plan = pruned(case)
    other = even_model("llama", intermediate_size=20, num_key_value_heads=8, **overrides)
    before = state(other)
    with pytest.raises(ValueError, match=r"Was the plan made for another model"):
        prune(other, case.cls(plan=plan))
    assert_same_state(other, before)


@unit_cases
def test_a_plan_that_cuts_is_not_applied_twice(case: Case) -> None:
    """The second time the units are gone already."""
    model, plan = pruned(case)
    before = state(model)
    with pytest.raises(ValueError, match="or applied already"):
        prune(model, case.cls(plan=plan))
    assert_same_state(model, before)


@every_method
def test_a_plan_that_is_not_there_is_an_error(cls: type[PruningCallback], tmp_path: Path) -> None:
    """A wrong path is not taken for a wish to calibrate."""
    with pytest.raises(FileNotFoundError, match="no plan at"):
        prune(even_model("llama"), cls(plan=tmp_path / "nowhere"), batches())


@pytest.mark.parametrize(
    ("cls", "first"),
    list(
        in_turn(
            [c for c in METHODS if issubclass(c, WeightPruning)],
            [c for c in METHODS if issubclass(c, UnitPruning)],
            2,
        )
    ),
    ids=lambda cls: cls.__name__,
)
@pytest.mark.parametrize("settings", [{}, {"layer_start": 1}], ids=["even", "uneven"])
def test_a_cut_model_can_be_masked(
    first: type[UnitPruning], cls: type[WeightPruning], settings: dict[str, int]
) -> None:
    """Units first, then weights of what is left, also where blocks differ."""
    model = even_model("llama")
    prune(model, first(ratio=0.5, allocation=Uniform(), **settings), batches())
    plan = prune(model, cls(sparsity=0.5), batches())
    assert plan.sparsity() == 0.5
    with torch.no_grad():
        assert torch.isfinite(model(tiny_batch()).logits).all()


@pytest.mark.parametrize(
    ("cls", "model_type"),
    list(in_turn([c for c in METHODS if issubclass(c, UnitPruning)], MODEL_TYPES, 3)),
    ids=lambda one: getattr(one, "__name__", one),
)
def test_a_cut_model_can_be_cut_again(cls: type[UnitPruning], model_type: str) -> None:
    """First some blocks, then all: the model keeps in step with itself."""
    model = even_model(model_type)
    prune(model, cls(ratio=0.5, layer_start=1, allocation=Uniform()), batches())
    prune(model, cls(ratio=0.5, allocation=Uniform()), batches())
    neurons = [block.units("neuron") for block in Anatomy(model).blocks]
    assert neurons == [12, 6, 6]
    with torch.no_grad():
        assert torch.isfinite(model(tiny_batch()).logits).all()
