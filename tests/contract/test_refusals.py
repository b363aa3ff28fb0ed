"""What every method refuses, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import CFSP, Uniform
from lightning_prune.anatomy import Anatomy
from lightning_prune.callbacks.base import PruningCallback
from lightning_prune.methods.units import UnitPruning
from lightning_prune.methods.weights import WeightPruning
from lightning_prune.pipeline import prune
from tests.contract.cases import (
    Case,
    assert_same_state,
    batches,
    even_model,
    state,
)
from tests.contract.marks import (
    CALIBRATED,
    alternately,
    calibrated,
    every_case,
    unit_methods,
    weight_methods,
)
from tests.sweep.helpers import counting_blocks, traces
from tests.tiny import tiny_batch, tiny_model


@every_case
def test_nan_weights_are_refused(case: Case) -> None:
    """By name, when their block is visited: it is not changed, nor is any if all come first."""
    model, method = even_model("llama"), case.make()
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[0, 0] = float("nan")
    part = model if method.survey else model.model.layers[2]
    before, marks = state(part), traces(model)
    name = r"model\.layers\.2\.mlp\.up_proj\.weight"
    with pytest.raises(ValueError, match=rf"^{name} holds NaN[^\n]*$"):
        prune(model, method, batches())
    assert_same_state(part, before)
    assert traces(model) == marks


@pytest.mark.parametrize(
    ("case", "value"), alternately(CALIBRATED, [float("inf"), float("nan")]), ids=str
)
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
        ({"sparsity": 1.2}, r"sparsity=1.2 is not allowed; it is in \[0, 1\)"),
        ({"sparsity": 1.0}, r"sparsity=1.0 is not allowed; it is in \[0, 1\)"),
        ({"sparsity": -0.1}, r"sparsity=-0.1 is not allowed; it is in \[0, 1\)"),
        ({"sparsity": float("nan")}, r"sparsity=nan is not allowed; it is in \[0, 1\)"),
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
        ({"ratio": 0.0}, r"ratio=0.0 is not allowed; it is in \(0, 1\)"),
        (
            {"ratio": 1.0},
            r"ratio=1.0 is not allowed; it is in \(0, 1\).*would remove every GQA group",
        ),
        ({"ratio": 1.2}, r"ratio=1.2 is not allowed; it is in \(0, 1\)"),
        ({"ratio": -0.5}, r"ratio=-0.5 is not allowed; it is in \(0, 1\)"),
        ({"attention": False, "mlp": False}, "leaves nothing to prune"),
        ({"ratio": 0.1, "mlp": False}, "ratio=0.1 of the 4 groups in a block removes none. Ask"),
        ({"ratio": 0.01, "attention": False}, "of the 24 neurons in a block removes none"),
        ({"ratio": 0.97}, "and up to .* can go"),
        ({"ratio": 0.3, "parameters": 9}, "ratio=0.3 or parameters=…, one of the two"),
        ({"parameters": 10**9}, "would remove -.*can go"),
        (
            {"ratio": 0.3, "attention_ratio": 1.0},
            r"attention_ratio=1.0 is not allowed; it is in \[0, 1\)",
        ),
        ({"ratio": 0.1, "attention_ratio": 0.9}, "attention_ratio=0.9 takes .* in whole groups"),
        ({"ratio": 0.8, "attention_ratio": 0.1}, "and neurons can make up for 0 to"),
        ({"ratio": 0.3, "min_units": 0}, "min_units=0 is not allowed; it is 1 or more"),
        (
            {"ratio": 0.3, "round_to": 1.5},
            "round_to=1.5 is not allowed; it is a whole number",
        ),
        ({"ratio": "0.3"}, "ratio='0.3' is not allowed; it is a number or None"),
        (
            {"ratio": 0.3, "round_to": 64, "attention": False},
            "to spare: 1 must stay, neurons in multiples of 64",
        ),
    ],
    ids=str,
)
@unit_methods
def test_wrong_amounts_of_units_are_refused(
    cls: type[UnitPruning], settings: dict[str, Any], message: str
) -> None:
    """In one line that says what is allowed, before anything runs."""
    if cls is CFSP and "groups" in message:
        message = "leaves nothing to prune"  # it has scores of neurons only
    if cls is CFSP and "attention_ratio" in settings and settings["attention_ratio"] < 1:
        message = "it needs attention=True and mlp=True"
    assert_refused(cls, settings | {"allocation": Uniform()}, message)


@every_case
def test_wrong_layer_ranges_are_refused(case: Case) -> None:
    """Negative, empty and too far; the message says how many blocks there are."""
    model = even_model("llama")
    for start, end in [(3, None), (-1, None), (0, 4), (2, 2), (2, 1), (0, 0), (0, -1)]:
        settings = case.settings | {"layer_start": start, "layer_end": end}
        assert_refused(case.cls, settings, "is no range of blocks: the model has 3", model)


def assert_refused(
    cls: type[PruningCallback],
    settings: dict[str, Any],
    message: str,
    model: nn.Module | None = None,
) -> None:
    model = even_model("llama") if model is None else model
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
        ValueError, match=r"layers.0.mlp.down_proj has 22.*Use sparsity=0.5, a pattern"
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
    with pytest.raises(ValueError, match="removes none") as error:
        prune(tiny_model("llama", **settings), cls(ratio=0.001, attention=False), batches())
    method = cls(ratio=advice(error), attention=False)
    assert prune(tiny_model("llama", **settings), method, batches()).removes_anything


def advice(error: pytest.ExceptionInfo[ValueError]) -> float:
    """The number after "Ask for sparsity=" or "Ask for ratio="."""
    return float(str(error.value).partition("Ask for ")[2].partition("=")[2].split()[0])


@pytest.mark.parametrize("model_type", ["llama", "phi3"])
@unit_methods
def test_the_only_key_value_head_stays(cls: type[UnitPruning], model_type: str) -> None:
    """Multi-query attention has one group: neurons alone make up the budget, or nothing can."""
    settings: dict[str, Any] = {"ratio": 0.3, "allocation": Uniform()}
    if cls is not CFSP:  # it leaves attention alone
        model = tiny_model(model_type, num_key_value_heads=1)
        with pytest.raises(ValueError, match=r"no block has groups to spare: 1 must stay"):
            prune(model, cls(mlp=False, **settings), batches())
        total = sum(block.unit_size("group") for block in Anatomy(model).blocks)
        total += sum(b.units("neuron") * b.unit_size("neuron") for b in Anatomy(model).blocks)
        before = sum(parameter.numel() for parameter in model.parameters())
        prune(model, cls(repair=None, **settings), batches())
        removed = before - sum(parameter.numel() for parameter in model.parameters())
        blocks = Anatomy(model).blocks
        assert abs(removed - 0.3 * total) <= len(blocks) * blocks[0].unit_size("neuron") / 2
    model = tiny_model(model_type, num_key_value_heads=1)
    plan = prune(model, cls(attention=False, **settings | {"ratio": 0.5}), batches())
    assert plan.kept("neuron", 0).numel() == 11
