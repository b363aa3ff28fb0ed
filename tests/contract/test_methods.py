"""What every pruning method promises, tried on every method through `prune`."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import UNIT_ROLES, Anatomy
from lightning_prune.callbacks import PruningCallback, UnitPruning, WeightPruning
from lightning_prune.pipeline import prune
from lightning_prune.plan import Plan
from lightning_prune.selection import removed_count
from lightning_prune.surgery import mask_units
from tests.contract.cases import (
    CASES,
    METHODS,
    SETTINGS,
    Case,
    assert_same_state,
    batches,
    even_model,
    state,
)
from tests.sweep.helpers import counting_blocks, padded, split, traces
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model

every_case = pytest.mark.parametrize("case", CASES, ids=str)
unit_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if issubclass(case.cls, UnitPruning)], ids=str
)
calibrated = pytest.mark.parametrize(
    "case", [case for case in CASES if case.cls.evidence is not None], ids=str
)
every_method = pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
weight_methods = pytest.mark.parametrize(
    "cls", [c for c in METHODS if issubclass(c, WeightPruning)], ids=lambda cls: cls.__name__
)
unit_methods = pytest.mark.parametrize(
    "cls", [c for c in METHODS if issubclass(c, UnitPruning)], ids=lambda cls: cls.__name__
)


@every_method
def test_every_method_is_tried(cls: type[PruningCallback]) -> None:
    """A method without settings here would not be tested at all."""
    assert SETTINGS.get(cls.__name__), (
        f"{cls.__name__} has no settings: add some to SETTINGS in tests/contract/cases.py"
    )


# --- what it removes ---


@every_case
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_it_removes_exactly_what_was_asked(case: Case, model_type: str) -> None:
    """Of every weight or unit in every block, and nothing outside the blocks."""
    model = even_model(model_type)
    before, method = state(model), case.make()
    plan = prune(model, method, batches())
    if isinstance(method, WeightPruning):
        assert_exact_weights(model, method, plan, before)
    elif isinstance(method, UnitPruning):
        assert_exact_units(model, method, plan)
    outside = {n: t for n, t in before.items() if not n.startswith(Anatomy(model).family.blocks)}
    for name, tensor in outside.items():
        assert torch.equal(model.state_dict()[name], tensor), name


def assert_exact_weights(
    model: nn.Module, method: WeightPruning, plan: Plan, before: dict[str, torch.Tensor]
) -> None:
    """The masks have exact counts in their scope, and the model is zero just where they are."""
    sites = [site for block in Anatomy(model).blocks for site in block.sites]
    assert set(plan.mask_names) == {site.weight_name for site in sites}
    assert not plan.kinds
    for site in sites:
        keep_OI = plan.mask(site.weight_name)
        outputs, inputs = keep_OI.shape
        if method.pattern is not None:
            n, m = map(int, method.pattern.split(":"))
            assert (keep_OI.view(outputs, inputs // m, m).sum(dim=2) == n).all()
        elif method.effective_scope == "row":
            removed = removed_count(inputs, method.budget)
            assert (~keep_OI).sum(dim=1).tolist() == [removed] * outputs
        else:  # the tiny models are narrower than a block of columns
            assert int((~keep_OI).sum()) == removed_count(keep_OI.numel(), method.budget)
        if site.weight_name in plan.corrected:
            assert not site.module.weight[~keep_OI].any()
        else:
            assert torch.equal(site.module.weight, before[site.weight_name] * keep_OI)


def assert_exact_units(model: nn.Module, method: UnitPruning, plan: Plan) -> None:
    """Every block keeps the exact count of each kind asked for, and has these shapes."""
    assert sorted(plan.kinds) == sorted(method.kinds)
    assert not plan.mask_names
    for block in Anatomy(model).blocks:
        for kind in UNIT_ROLES:
            if kind not in method.kinds:
                assert block.units(kind) == even_units(model, kind)
                continue
            total = plan.blocks(kind)[block.index].total
            kept = plan.kept(kind, block.index)
            assert total == even_units(model, kind)
            assert kept.numel() == block.units(kind) == total - removed_count(total, method.budget)
            assert kept.tolist() == sorted(set(kept.tolist()))


def even_units(model: nn.Module, kind: str) -> int:
    """What the dense tiny model has."""
    groups = 8 if Anatomy(model).family.kv_heads_key is None else 4
    return {"group": groups, "neuron": 24}[kind]


@unit_cases
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_shrunken_model_computes_what_the_masked_one_computes(
    case: Case, model_type: str
) -> None:
    """The strongest test of a method that cuts."""
    model = tiny_model(model_type)
    masked = copy.deepcopy(model)
    mask_units(Anatomy(masked), prune(model, case.make(), batches()))
    with torch.no_grad():
        torch.testing.assert_close(
            model(tiny_batch()).logits, masked(tiny_batch()).logits, rtol=1e-4, atol=2e-5
        )


@unit_cases
@pytest.mark.parametrize(
    ("model_type", "overrides"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"tie_word_embeddings": True}),
        ("opt", {"tie_word_embeddings": True}),
        ("llama", {"num_key_value_heads": 8}),
        ("llama", {"num_key_value_heads": 2, "intermediate_size": 23, "head_dim": 10}),
    ],
    ids=str,
)
def test_unusual_models_are_cut_right(
    case: Case, model_type: str, overrides: dict[str, Any]
) -> None:
    """Biases, tied embeddings, multi-head attention, odd widths."""
    model = tiny_model(model_type, **overrides)
    masked = copy.deepcopy(model)
    mask_units(Anatomy(masked), prune(model, case.make(ratio=0.6), batches()))
    with torch.no_grad():
        torch.testing.assert_close(
            model(tiny_batch()).logits, masked(tiny_batch()).logits, rtol=1e-4, atol=2e-5
        )


@every_case
@pytest.mark.parametrize("model_type", ["llama", "opt"])
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
    if case.cls.survey:
        assert seen == [0, 1, 2, 2, 1, 0]
    else:
        assert seen == [0]


# --- what it leaves as it was ---


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types_devices_and_flags_are_kept(case: Case, dtype: torch.dtype) -> None:
    """Dtype, device, requires_grad, training mode, gradients, hooks."""
    model = even_model("llama", dtype=dtype).train()
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    before = traces(model)
    prune(model, case.make(), batches())
    assert traces(model) == before
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert parameter.device.type == "cpu"
        assert parameter.requires_grad == flags[name]
        assert parameter.grad is None
        assert torch.isfinite(parameter).all()


@calibrated
def test_batches_are_left_as_they_were(case: Case) -> None:
    """The caller's tensors and dicts."""
    data = split(padded("left"), 2)
    before = copy.deepcopy(data)
    prune(even_model("llama"), case.make(), data)
    torch.testing.assert_close(data, before, rtol=0, atol=0)


# --- what it depends on ---


@every_case
def test_the_same_again_gives_the_same_again(case: Case) -> None:
    """Bit for bit, with one method object or another, and without touching the random state."""
    random_state = torch.get_rng_state()
    first, second = even_model("llama"), even_model("llama")
    torch.set_rng_state(random_state)
    method = case.make()
    prune(first, method, batches())
    assert torch.equal(torch.get_rng_state(), random_state)
    prune(second, method, batches())
    assert_same_state(second, state(first))


@calibrated
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_batch_size_and_padding_side_do_not_show(case: Case, model_type: str) -> None:
    """The same sequences in one batch or one by one, padded left, right or not: equal scores."""
    lengths = tokens_alone(padded("left"))
    kinds = {
        "left": [padded("left")],
        "left, one by one": split(padded("left"), 1),
        "not padded": lengths,
        "not padded, backwards": lengths[::-1],
    }
    right = [shifted_right(padded("left"))]
    reference = scores(case, model_type, right)
    for name, data in kinds.items():
        for key, score in scores(case, model_type, data).items():
            limit = 1e-4 * float(reference[key].abs().max())
            torch.testing.assert_close(
                score, reference[key], rtol=2e-3, atol=limit, msg=lambda m, n=name: f"{n}: {m}"
            )


def tokens_alone(batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Each sequence alone, without padding and without a mask."""
    rows = zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True)
    return [{"input_ids": ids[keep][None]} for ids, keep in rows]


def shifted_right(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same sequences, with the padding moved from left to right."""
    order = batch["attention_mask"].argsort(dim=1, descending=True, stable=True)
    return {name: tensor.gather(1, order) for name, tensor in batch.items()}


def scores(
    case: Case, model_type: str, data: list[dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    model = even_model(model_type)
    plan = prune(model, case.make(keep_scores=True), data)
    found = {name: plan.scores("weight", name) for name in plan.mask_names}
    for kind in plan.kinds:
        found |= {f"{kind} {i}": plan.scores(kind, i) for i in plan.blocks(kind)}
    return found


@every_case
def test_scores_are_kept_on_request(case: Case, tmp_path: Path) -> None:
    """Finite fp32, one for each weight or unit; what stays scores no less than what goes."""
    plan = prune(even_model("llama"), case.make(keep_scores=True), batches())
    plan = Plan.load(plan.save(tmp_path))
    for name in plan.mask_names:
        score_OI = plan.scores("weight", name)
        assert score_OI.shape == plan.mask_shape(name)
        assert score_OI.dtype == torch.float32
        assert torch.isfinite(score_OI).all()
    for kind in plan.kinds:
        for block, kept in plan.blocks(kind).items():
            score_U = plan.scores(kind, block)
            assert score_U.shape == (kept.total,)
            assert torch.isfinite(score_U).all()
            gone = torch.ones(kept.total, dtype=torch.bool).index_fill(0, kept.index_U, False)
            assert score_U[gone].max() <= score_U[kept.index_U].min()
    without = prune(even_model("llama"), case.make(), batches())
    asked = ("weight", plan.mask_names[0]) if plan.mask_names else (plan.kinds[0], 0)
    with pytest.raises(KeyError, match="keep_scores=True"):
        without.scores(*asked)


@every_case
def test_offloading_changes_nothing(case: Case) -> None:
    """Where hidden states wait between blocks does not show."""
    here, away = even_model("llama"), even_model("llama")
    prune(here, case.make(), batches())
    prune(away, case.make(offload=True), batches())
    assert_same_state(away, state(here))


# --- the method as a value ---


@every_case
def test_repr_makes_the_method_again(case: Case) -> None:
    """And says only what differs from the defaults."""
    method = case.make(layer_start=1, layer_end=3, keep_scores=True)
    again = eval(repr(method), {case.cls.__name__: case.cls})
    assert again.arguments == method.arguments
    assert repr(again) == repr(method)
    assert "offload" not in repr(method)


@every_case
def test_arguments_are_all_the_constructor_takes(case: Case) -> None:
    """Its own and those of its base classes, under their names."""
    method = case.make(layer_end=2)
    assert case.settings.items() <= method.arguments.items()
    assert method.arguments["layer_end"] == 2
    shared = {"plan", "layer_start", "layer_end", "allocation", "keep_scores", "offload"}
    assert shared <= method.arguments.keys()
    assert method.state_key != case.make(layer_end=1).state_key


@every_case
def test_unknown_arguments_are_refused(case: Case) -> None:
    """A misspelt setting is not ignored."""
    with pytest.raises(TypeError, match="layer_begin"):
        case.make(layer_begin=1)


@every_case
def test_provenance_says_how_the_plan_was_made(case: Case) -> None:
    """In words that JSON can hold."""
    plan = prune(even_model("llama"), case.make(), batches())
    assert json.loads(json.dumps(plan.provenance)) == plan.provenance
    assert plan.provenance["method"] == case.cls.__name__
    assert plan.provenance["model_type"] == "llama"
    assert case.settings.items() <= plan.provenance["arguments"].items()


# --- a saved plan ---


@every_case
@pytest.mark.parametrize("model_type", ["llama", "phi3", "opt"])
def test_a_saved_plan_gives_the_identical_model(
    case: Case, model_type: str, tmp_path: Path
) -> None:
    """Without calibration, without a forward pass, from a folder or from memory."""
    model = even_model(model_type)
    plan = prune(model, case.make(), batches())
    plan.save(tmp_path)
    for saved in (tmp_path, str(tmp_path), plan):
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
    plan = prune(even_model("llama"), case.make(), batches())
    other = even_model("llama", intermediate_size=20, num_key_value_heads=8, **overrides)
    before = state(other)
    with pytest.raises(ValueError, match=r"Was the plan made for another model"):
        prune(other, case.cls(plan=plan))
    assert_same_state(other, before)


@unit_cases
def test_a_plan_that_cuts_is_not_applied_twice(case: Case) -> None:
    """The second time the units are gone already."""
    model = even_model("llama")
    plan = prune(model, case.make(), batches())
    before = state(model)
    with pytest.raises(ValueError, match="or applied already"):
        prune(model, case.cls(plan=plan))
    assert_same_state(model, before)


@every_method
def test_a_plan_that_is_not_there_is_an_error(cls: type[PruningCallback], tmp_path: Path) -> None:
    """A wrong path is not taken for a wish to calibrate."""
    with pytest.raises(FileNotFoundError, match="no plan at"):
        prune(even_model("llama"), cls(plan=tmp_path / "nowhere"), batches())


# --- what it refuses ---


@every_case
def test_nan_weights_are_refused(case: Case) -> None:
    """In any block, before anything else happens."""
    model = even_model("llama")
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[0, 0] = float("nan")
    before = state(model)
    with counting_blocks(model) as seen, pytest.raises(ValueError, match="layers.2.mlp.up_proj"):
        prune(model, case.make(), batches())
    assert seen == []
    assert_same_state(model, before)


@calibrated
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_activations_that_overflow_are_refused(case: Case, value: float) -> None:
    """The message names the block and says what to do; the block itself is not changed."""
    model = even_model("llama")
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[3] = value
    before, modes = state(model), traces(model)
    with pytest.raises(ValueError, match=r"in model.layers.0 are not finite.*bfloat16 or float32"):
        prune(model, case.make(), batches())
    assert_same_state(model, before)
    assert traces(model) == modes


@calibrated
def test_calibration_text_is_needed(case: Case) -> None:
    """None, an empty list, an iterator that was read before, padding only."""
    model = even_model("llama")
    before = state(model)
    with pytest.raises(ValueError, match=r"needs calibration batches: dicts with input_ids"):
        prune(model, case.make())
    padding = {"input_ids": tiny_batch(), "attention_mask": torch.zeros(2, 12, dtype=torch.long)}
    for nothing in ([], iter([]), [padding]):
        with pytest.raises(ValueError, match="no calibration tokens: pass batches, dicts with"):
            prune(model, case.make(), nothing)
    assert_same_state(model, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 1.2}, r"sparsity=1.2 is not in \[0, 1\)"),
        ({"sparsity": 1.0}, r"sparsity=1.0 is not in \[0, 1\)"),
        ({"sparsity": -0.1}, r"sparsity=-0.1 is not in \[0, 1\)"),
        ({"sparsity": float("nan")}, r"sparsity=nan is not in \[0, 1\)"),
        ({}, "takes sparsity=0.5 or pattern='2:4', one of the two"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "one of the two; got sparsity=0.5, pattern='2:4'"),
        ({"pattern": "4:2"}, "pattern 4:2 .*0 < N < M"),
        ({"pattern": "0:4"}, "pattern 0:4 .*0 < N < M"),
        ({"pattern": "abc"}, "pattern 'abc' is not of the form N:M"),
        ({"pattern": "2:5"}, "2:5 needs input features divisible by 5; model.layers.0.self_attn"),
        ({"sparsity": 0.0}, "sparsity=0.0 of .* removes none"),
    ],
    ids=str,
)
@weight_methods
def test_wrong_amounts_of_weights_are_refused(
    cls: type[WeightPruning], settings: dict[str, Any], message: str
) -> None:
    """In one line that says what is allowed, before anything runs."""
    assert_refused(cls, settings, message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0.0}, r"ratio=0.0 is not in \(0, 1\)"),
        ({"ratio": 1.0}, r"ratio=1.0 is not in \(0, 1\).*would remove every GQA group"),
        ({"ratio": 1.2}, r"ratio=1.2 is not in \(0, 1\)"),
        ({"ratio": -0.5}, r"ratio=-0.5 is not in \(0, 1\)"),
        ({"attention": False, "mlp": False}, "leaves nothing to prune"),
        ({"ratio": 0.2}, "ratio=0.2 of 4 groups in a block removes none. Ask for ratio=0.25"),
        ({"ratio": 0.01, "attention": False}, "of 24 neurons in a block removes none"),
    ],
    ids=str,
)
@unit_methods
def test_wrong_amounts_of_units_are_refused(
    cls: type[UnitPruning], settings: dict[str, Any], message: str
) -> None:
    """In one line that says what is allowed, before anything runs."""
    assert_refused(cls, settings, message)


@pytest.mark.parametrize(
    ("start", "end"), [(3, None), (-1, None), (0, 4), (2, 2), (2, 1), (0, 0), (0, -1)]
)
@every_case
def test_wrong_layer_ranges_are_refused(case: Case, start: int, end: int | None) -> None:
    """Negative, empty and too far; the message says how many blocks there are."""
    settings = case.settings | {"layer_start": start, "layer_end": end}
    assert_refused(case.cls, settings, "is no range of blocks: the model has 3")


def assert_refused(cls: type[PruningCallback], settings: dict[str, Any], message: str) -> None:
    model = even_model("llama")
    before = state(model)

    def attempt() -> None:
        prune(model, cls(**settings), batches())

    with counting_blocks(model) as seen, pytest.raises(ValueError, match=message) as error:
        attempt()
    assert "\n" not in str(error.value)
    assert seen == []
    assert_same_state(model, before)


@weight_methods
def test_a_width_that_the_pattern_does_not_divide_is_named(cls: type[WeightPruning]) -> None:
    """The site, its width, and what to do instead."""
    with pytest.raises(
        ValueError, match=r"layers.0.mlp.down_proj has 22. Use sparsity=0.5, or a pattern"
    ):
        prune(tiny_model("llama"), cls(pattern="2:4"), batches())


@weight_methods
def test_a_sparsity_that_removes_nothing_says_which_would(cls: type[WeightPruning]) -> None:
    """And the one that it names does remove something."""
    with pytest.raises(ValueError, match="removes none") as error:
        prune(even_model("llama"), cls(sparsity=1e-6), batches())
    assert prune(even_model("llama"), cls(sparsity=advice(error)), batches()).removes_anything


@pytest.mark.parametrize("width", [7, 9, 12, 22, 172])
@unit_methods
def test_a_ratio_that_removes_nothing_says_which_would(cls: type[UnitPruning], width: int) -> None:
    """And the one that it names removes a unit."""
    settings = {"intermediate_size": width, "num_hidden_layers": 1}
    with pytest.raises(ValueError, match="set mlp=False") as error:
        prune(tiny_model("llama", **settings), cls(ratio=0.001, attention=False), batches())
    method = cls(ratio=advice(error), attention=False)
    assert prune(tiny_model("llama", **settings), method, batches()).removes_anything


def advice(error: pytest.ExceptionInfo[ValueError]) -> float:
    """The number after "Ask for sparsity=" or "Ask for ratio="."""
    return float(str(error.value).partition("Ask for ")[2].partition("=")[2].split()[0])


@pytest.mark.parametrize("model_type", ["llama", "phi3"])
@unit_methods
def test_the_only_key_value_head_stays(cls: type[UnitPruning], model_type: str) -> None:
    """Multi-query attention has one group: refused with advice, and the advice works."""
    model = tiny_model(model_type, num_key_value_heads=1)
    with pytest.raises(ValueError, match=r"only one must stay; set attention=False"):
        prune(model, cls(ratio=0.5), batches())
    plan = prune(model, cls(ratio=0.5, attention=False), batches())
    assert plan.kept("neuron", 0).numel() == 11


# --- one after another ---


@weight_methods
@pytest.mark.parametrize(
    "first", [c for c in METHODS if issubclass(c, UnitPruning)], ids=lambda cls: cls.__name__
)
@pytest.mark.parametrize("settings", [{}, {"layer_start": 1}], ids=["even", "uneven"])
def test_a_cut_model_can_be_masked(
    first: type[UnitPruning], cls: type[WeightPruning], settings: dict[str, int]
) -> None:
    """Units first, then weights of what is left, also where blocks differ."""
    model = even_model("llama")
    prune(model, first(ratio=0.5, **settings), batches())
    plan = prune(model, cls(sparsity=0.5), batches())
    assert plan.sparsity() == 0.5
    with torch.no_grad():
        assert torch.isfinite(model(tiny_batch()).logits).all()


@unit_methods
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_cut_model_can_be_cut_again(cls: type[UnitPruning], model_type: str) -> None:
    """First some blocks, then all: the model keeps in step with itself."""
    model = even_model(model_type)
    prune(model, cls(ratio=0.5, layer_start=1), batches())
    prune(model, cls(ratio=0.5), batches())
    neurons = [block.units("neuron") for block in Anatomy(model).blocks]
    assert neurons == [12, 6, 6]
    with torch.no_grad():
        assert torch.isfinite(model(tiny_batch()).logits).all()
