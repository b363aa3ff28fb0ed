"""What every method removes: exactly what was asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Bias, GQATaylor, LeastSquares, Uniform
from lightning_prune.anatomy import UNIT_ROLES, Anatomy
from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from lightning_prune.repair import Repair
from lightning_prune.selection import removed_count
from tests.contract.cases import (
    CASES,
    Case,
    batches,
    even_model,
    pruned,
    state,
)
from tests.contract.marks import (
    CUTS,
    alternately,
    calibrated,
    every_case,
    in_turn,
)
from tests.contract.masked import masked
from tests.sweep.helpers import counting_blocks
from tests.tiny import MODEL_TYPES, tiny_batch


@pytest.mark.parametrize(("case", "model_type"), list(in_turn(CASES, MODEL_TYPES, 3)), ids=str)
def test_it_removes_exactly_what_was_asked(case: Case, model_type: str) -> None:
    """Of every weight or unit in every block, and nothing outside the blocks."""
    before, method = state(even_model(model_type)), case.make()
    model, plan = pruned(case, model_type)
    if isinstance(method, WeightPruning):
        assert_exact_weights(model, method, plan, before)
    elif isinstance(method, UnitPruning):
        assert_exact_units(model, method, plan)
    blocks, after = Anatomy(model).family.blocks, model.state_dict()
    for name, tensor in before.items():
        assert name.startswith(blocks) or torch.equal(after[name], tensor), name


def assert_exact_weights(
    model: nn.Module, method: WeightPruning, plan: Plan, before: dict[str, torch.Tensor]
) -> None:
    """The masks have exact counts in their scope, and the model is zero just where they are."""
    sites = [site for block in Anatomy(model).blocks for site in block.sites]
    assert set(plan.mask_names) == {site.weight_name for site in sites}
    assert not plan.kinds
    everywhere = method.pattern is None and method.effective_scope == "global"
    if everywhere:
        keep = torch.cat([plan.mask(site.weight_name).flatten() for site in sites])
        assert int((~keep).sum()) == removed_count(keep.numel(), method.fraction)
    for site in sites:
        keep_OI = plan.mask(site.weight_name)
        outputs, inputs = keep_OI.shape
        if method.pattern is not None:
            n, m = map(int, method.pattern.split(":"))
            assert (keep_OI.view(outputs, inputs // m, m).sum(dim=2) == n).all()
        elif method.effective_scope == "row":
            removed = removed_count(inputs, method.fraction)
            assert (~keep_OI).sum(dim=1).tolist() == [removed] * outputs
        elif not everywhere:  # the tiny models are narrower than a block of columns
            assert int((~keep_OI).sum()) == removed_count(keep_OI.numel(), method.fraction)
        if site.weight_name in plan.corrected:
            assert not site.module.weight[~keep_OI].any()
        else:
            assert torch.equal(site.module.weight, before[site.weight_name] * keep_OI)


def assert_exact_units(model: nn.Module, method: UnitPruning, plan: Plan) -> None:
    """As many parameters go as asked, within one unit (of each block, if these stay alike)."""
    assert sorted(plan.kinds) == sorted(method.kinds)
    assert not plan.mask_names
    dense = Anatomy(even_model(model.config.model_type.removeprefix("pruned_")))
    off = []
    for now, before in zip(Anatomy(model).blocks, dense.blocks, strict=True):
        gone = 0
        for kind in UNIT_ROLES:
            if kind not in method.kinds:
                assert now.units(kind) == before.units(kind)
                continue
            kept = plan.kept(kind, now.index)
            assert kept.tolist() == sorted(set(kept.tolist()))
            assert kept.numel() == now.units(kind)
            assert plan.blocks(kind)[now.index].total == before.units(kind)
            gone += (before.units(kind) - now.units(kind)) * before.unit_size(kind)
        off.append(gone - method.ratio * method.size(before))
    unit = min(dense.blocks[0].unit_size(kind) for kind in method.kinds)
    parts = off if isinstance(method.effective_allocation, Uniform) else [sum(off)]
    assert max(map(abs, parts)) <= unit / 2


def masked_copy(model_type: str, pruned: nn.Module, plan: Plan, **overrides: Any) -> nn.Module:
    return masked(even_model(model_type, **overrides), pruned, plan)


REPAIRS = (None, Bias(), LeastSquares(), LeastSquares(trust=0))


@pytest.mark.parametrize(("case", "model_type"), list(in_turn(CUTS, MODEL_TYPES, 4)), ids=str)
def test_the_shrunken_model_computes_what_the_masked_one_computes(
    case: Case, model_type: str
) -> None:
    """The strongest test of a method that cuts."""
    model, plan = pruned(case, model_type)
    assert_same_logits(model, masked_copy(model_type, model, plan))


@pytest.mark.parametrize("repair", REPAIRS, ids=repr)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_repair_goes_with_every_family(repair: Repair, model_type: str) -> None:
    """Also there the shrunken model computes what the masked one computes."""
    model = even_model(model_type)
    plan = prune(model, GQATaylor(ratio=0.4, repair=repair), batches())
    assert_same_logits(model, masked_copy(model_type, model, plan))


@pytest.mark.parametrize(("case", "repair"), list(in_turn(CUTS, REPAIRS, 2)), ids=str)
def test_every_repair_goes_with_every_score(case: Case, repair: Repair) -> None:
    """Any score, any repair."""
    model = even_model("llama")
    plan = prune(model, case.make(repair=repair), batches())
    assert_same_logits(model, masked_copy("llama", model, plan))


UNUSUAL: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"tie_word_embeddings": True}),
    ("opt", {"tie_word_embeddings": True}),
    ("llama", {"num_key_value_heads": 8}),
    ("llama", {"num_key_value_heads": 2, "intermediate_size": 23, "head_dim": 10}),
]


@pytest.mark.parametrize(("case", "unusual"), list(in_turn(CUTS, UNUSUAL, 3)), ids=str)
def test_unusual_models_are_cut_right(case: Case, unusual: tuple[str, dict[str, Any]]) -> None:
    """Biases, tied embeddings, multi-head attention, odd widths."""
    model_type, overrides = unusual
    model = even_model(model_type, **overrides)
    plan = prune(model, case.make(ratio=0.35), batches())
    assert_same_logits(model, masked_copy(model_type, model, plan, **overrides))


def assert_same_logits(model: nn.Module, other: nn.Module) -> None:
    """To float tolerance."""
    with torch.no_grad():
        torch.testing.assert_close(
            model(tiny_batch()).logits, other(tiny_batch()).logits, rtol=1e-4, atol=2e-5
        )


@pytest.mark.parametrize(("case", "model_type"), alternately(CASES, ["llama", "opt"]), ids=str)
def test_tied_embeddings_stay_tied(case: Case, model_type: str) -> None:
    """Input and output embeddings are one tensor, before and after, and unchanged."""
    model = even_model(model_type, tie_word_embeddings=True)
    before = model.get_input_embeddings().weight.detach().clone()
    prune(model, case.make(), batches())
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight, before)


@every_case
def test_only_the_chosen_blocks_change(case: Case) -> None:
    """`layer_start` counts from 0, `layer_end` is not pruned."""
    model = even_model("llama")
    before = state(model)
    plan = prune(model, case.make(layer_start=1, layer_end=2), batches())
    changed = {
        name.split(".")[2]
        for name, tensor in model.state_dict().items()
        if tensor.shape != before[name].shape or not torch.equal(tensor, before[name])
    }
    assert changed == {"1"}
    assert {name.split(".")[2] for name in plan.mask_names} <= {"1"}
    assert all(set(plan.blocks(kind)) == {1} for kind in plan.kinds)


@calibrated
def test_only_what_is_needed_runs(case: Case) -> None:
    """Blocks behind the last one chosen do not run in a pass forward."""
    model = even_model("llama")
    with counting_blocks(model) as seen:
        prune(model, case.make(layer_start=0, layer_end=1), batches(size=4))
    requests = case.make().requests()
    if requests[0].sweep == "backward":  # each forward, and perhaps once more with gradients
        assert max(seen.count(1), seen.count(2)) <= 2 * len(requests)
    elif requests[0].sweep == "removal":
        assert seen == [0, 1, 2] * 2  # the perplexity needs all: of the dense model, and without
    elif requests[0].sweep == "paired":
        assert seen == [0, 0]  # the dense one beside it
    elif "logits" in str(case):
        assert set(seen) == {0, 1, 2}  # what the model says is trained
    else:
        assert set(seen) == {0}
