"""Circuit: what goes, how it is taken back, and that it is saved and resumed as other methods are.

Axes: U units of one block.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import (
    Attributions,
    CausalLM,
    Circuit,
    CircuitUnits,
    LeastSquares,
    Plan,
    attribute,
    prune,
)
from lightning_prune.anatomy import Anatomy
from lightning_prune.models.recovery.merge import merged_model
from lightning_prune.surgery import mask_units
from tests.contract.cases import assert_same_state, batches, state
from tests.lightning.runs import make_data, make_trainer
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model

NEURONS = CircuitUnits("neuron", [("2", 21), ("0", 3), ("0", 8)])


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        made: torch.Tensor = model(input_ids=tiny_batch(2, 9)).logits
    return made


def test_attributions_of_another_model_of_these_shapes_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By a hash of its weights; those that do not say of which model they are go, with a line."""
    model, other = tiny_model("llama"), tiny_model("llama")
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    halves = tiny_batch(4, 9).split(2)
    made = [attribute(model, [{"input_ids": ids_BT}]) for ids_BT in halves]
    paths = [a.save(tmp_path / f"{i}.safetensors") for i, a in enumerate(made)]
    pair = {"general": Attributions.mean([made[0], made[0]]), "undesired": paths[1], "count": 3}
    prune(model, Circuit(**pair))
    before = state(other)
    with pytest.raises(ValueError, match="of a model of the same shapes, and of other weights"):
        prune(other, Circuit(**pair))
    assert_same_state(other, before)
    mixed = {"general": made[0], "undesired": attribute(other, batches()), "count": 3}
    with pytest.raises(ValueError, match="attributions are of different models"):
        prune(other, Circuit(**mixed))  # type: ignore[arg-type]
    assert "which model" not in caplog.text
    unsaid = [Attributions(a.kind, a.values, {}) for a in made]
    prune(other, Circuit(general=unsaid[0], undesired=unsaid[1], count=3))
    assert "do not say of which model they are" in caplog.text


@pytest.mark.parametrize("kind", ["neuron", "group"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_is_masked_computes_what_is_cut(model_type: str, kind: Any) -> None:
    """And what rows and columns of zeros do."""
    units = NEURONS if kind == "neuron" else CircuitUnits("group", [("1", 0), ("2", 3)])
    masked, cut, zeros = (tiny_model(model_type) for _ in range(3))
    prune(masked, Circuit(units=units))
    plan = prune(cut, Circuit(units=units, cut=True))
    mask_units(Anatomy(zeros), plan)
    assert not torch.allclose(logits(masked), logits(tiny_model(model_type)))
    torch.testing.assert_close(logits(masked), logits(zeros))
    torch.testing.assert_close(logits(cut), logits(zeros), rtol=1e-4, atol=1e-5)


def test_the_most_undesired_and_least_general_go() -> None:
    """So many, of the whole model."""
    model = tiny_model("llama")
    general = attribute(model, batches())
    undesired = attribute(model, batches(tokens=7))
    plan = prune(model, Circuit(general=general, undesired=undesired, count=5, cut=True))
    difference = torch.stack([general.values[n] - undesired.values[n] for n in ("0", "1", "2")])
    gone = {
        (block, unit)
        for block, kept in plan.blocks("neuron").items()
        for unit in set(range(22)) - set(kept.index_U.tolist())
    }
    lowest = difference.flatten().topk(5, largest=False).indices.tolist()
    assert gone == {divmod(place, 22) for place in lowest}


def test_single_weights_of_named_linears_go() -> None:
    model = tiny_model("llama")
    general, undesired = (
        attribute(model, batches(tokens=t), kind="weight", include="*.up_proj") for t in (12, 7)
    )
    plan = prune(model, Circuit(general=general, undesired=undesired, count=40))
    assert all(name.endswith("mlp.up_proj.weight") for name in plan.mask_names)
    assert sum(int((~plan.mask(name)).sum()) for name in plan.mask_names) == 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_taken_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    """By the plan that was saved too."""
    model = tiny_model("llama", dtype=dtype)
    before = state(model)
    plan = prune(model, Circuit(units=NEURONS))
    Plan.load(plan.save(tmp_path)).restore(model)
    assert_same_state(model, before)
    plan.set_strength(model, 1.0)
    again = tiny_model("llama", dtype=dtype)
    prune(again, Circuit(plan=plan))
    assert_same_state(model, state(again))


def test_strength_scales_what_a_unit_says() -> None:
    """The change of its block's output is in proportion."""
    model = tiny_model("llama")
    mlp = Anatomy(model).blocks[0].module.get_submodule("mlp")
    input_BTD = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))

    def output() -> torch.Tensor:
        with torch.no_grad():
            made: torch.Tensor = mlp(input_BTD)
        return made

    whole = output()
    plan = prune(model, Circuit(units=NEURONS))
    without = output()
    plan.set_strength(model, 0.25)
    torch.testing.assert_close(output(), 0.75 * whole + 0.25 * without)
    with pytest.raises(ValueError, match=r"strength=1.5 is not allowed"):
        plan.set_strength(model, 1.5)
    other = tiny_model("llama", intermediate_size=20)
    with pytest.raises(ValueError, match=r"the model has \(32, 20\)"):
        plan.restore(other)


def test_a_plan_without_what_it_removed_cannot_be_taken_back() -> None:
    model = tiny_model("llama")
    plan = prune(model, Circuit(units=NEURONS, cut=True))
    with pytest.raises(ValueError, match="has not kept what it removed, or cut it off"):
        plan.restore(model)


def test_what_is_cut_can_be_repaired() -> None:
    """With calibration text."""
    method = Circuit(units=NEURONS, cut=True, repair=LeastSquares())
    assert method.calibrates
    plan = prune(tiny_model("llama"), method, batches())
    assert [name for name in plan.corrected if name.endswith("down_proj.weight")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "takes general=…, undesired=… and count=100, or units"),
        ({"general": "a", "count": 3}, "takes general"),
        ({"general": "a", "undesired": "b", "units": "c", "count": 3}, "takes general"),
        ({"general": "a", "undesired": "b"}, "count=None is not allowed"),
        ({"units": "c", "count": 0}, "count=0 is not allowed"),
        ({"units": "c", "repair": LeastSquares()}, "repairs go with cut=True"),
    ],
)
def test_arguments_that_say_nothing_or_two_things_are_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Circuit(**arguments)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Circuit(units=CircuitUnits("neuron", [("0", 22)])), r"neuron \[22\] in '0', and the"),
        (Circuit(units=CircuitUnits("neuron", [("7", 0)])), "has no such place"),
        (Circuit(units=CircuitUnits("weight", [("x", 0, 1)])), "has no such place"),
        (Circuit(units=CircuitUnits("neuron", [("0", True)])), r"neuron \[True\] in '0'"),
        (Circuit(units=CircuitUnits("head", [("0", 0)])), "kind 'head'; it is one of neuron, "),  # type: ignore[arg-type]
        (Circuit(units=NEURONS, count=4), "the list has 3 members"),
        (Circuit(units=NEURONS, layer_start=1, layer_end=2), "has no member in the blocks"),
        (
            Circuit(units=CircuitUnits("group", [("1", i) for i in range(4)]), cut=True),
            "takes all 4 groups of block 1",
        ),
        (
            Circuit(units=CircuitUnits("weight", [("model.layers.0.mlp.up_proj.weight", 0, 0)]),
                    cut=True),
            "single weights cannot be cut off",
        ),
        (
            Circuit(
                general=Attributions("neuron", {"0": torch.zeros(3)}),
                undesired=Attributions("neuron", {"0": torch.ones(3)}),
                count=1,
            ),
            r"have \(3,\) neurons in '0', and the model \(22,\)",
        ),
        (Circuit(units=CircuitUnits("neuron", [("0", 1), ("0", 1)])), "lists a member twice"),
        (
            Circuit(units=CircuitUnits("neuron", [("0", 1)], (), {"parts": 65})),
            "chosen out of 65 neurons, and the model has 66",
        ),
        (Circuit(units="nowhere.json"), "no circuit at 'nowhere.json'"),
    ],
)  # fmt: skip
def test_what_the_model_does_not_have_is_refused(method: Circuit, message: str) -> None:
    """Before it is changed."""
    model = tiny_model("llama")
    before = state(model)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prune(model, method)
    assert_same_state(model, before)


def test_all_units_of_a_block_can_be_masked() -> None:
    """The block's attention is silent then; where they are cut one must stay."""
    model = tiny_model("llama")
    plan = prune(model, Circuit(units=CircuitUnits("group", [("1", i) for i in range(4)])))
    assert not plan.mask("model.layers.1.self_attn.o_proj.weight").any()


def test_a_range_of_blocks_is_ranked_alone() -> None:
    model = tiny_model("llama")
    general, undesired = attribute(model, batches()), attribute(model, batches(tokens=7))
    both = {"general": general, "undesired": undesired, "count": 3, "cut": True}
    plan = prune(model, Circuit(**both, layer_start=1, layer_end=2))
    assert {b for b, kept in plan.blocks("neuron").items() if kept.removed} == {1}


def test_a_run_is_found_again_by_what_goes(
    tmp_path: Path, model_folder: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its file is called; another list is another run."""

    def fit(path: str, units: CircuitUnits) -> CausalLM:
        units.save(tmp_path / path)
        module = CausalLM(str(model_folder), adapter="none")
        method = Circuit(units=tmp_path / path)
        trainer = make_trainer(tmp_path / "run", method, steps=1)
        trainer.fit(module, datamodule=make_data(text_file))
        return module

    units = CircuitUnits("neuron", [("0", 1), ("1", 5)])
    first = fit("one.json", units)
    assert not (tmp_path / "run" / "plan-before").exists()
    again = fit("two.json", units)
    assert not (tmp_path / "run" / "plan-before").exists()
    assert_same_state(again.base, state(first.base))
    fit("two.json", units.first(1))
    assert (tmp_path / "run" / "plan-before").exists()


def test_a_fit_applies_a_plan_that_was_made(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    """And again in the same folder; what it removed can be taken back."""
    dense = CausalLM(str(model_folder), adapter="none")
    dense.load()
    before = state(dense.base)
    prune(dense.base, Circuit(units=NEURONS.first(1))).save(tmp_path / "plan")
    for _ in range(2):
        module = CausalLM(str(model_folder), adapter="none")
        trainer = make_trainer(tmp_path / "run", Circuit(plan=tmp_path / "plan"), steps=0)
        trainer.fit(module, datamodule=make_data(text_file))
        assert_same_state(module.base, state(dense.base))
        module.plans[0].restore(module.base)
        assert_same_state(module.base, before)


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_what_is_masked_stays_so_while_the_rest_is_trained(
    tmp_path: Path, model_folder: Path, text_file: Path, adapter: Any
) -> None:
    """And when the adapter is merged."""
    module = CausalLM(str(model_folder), adapter=adapter, learning_rate=1e-2)
    method = Circuit(units=CircuitUnits("neuron", [("0", 1), ("1", 5)]))
    make_trainer(tmp_path / "run", method, steps=2).fit(module, datamodule=make_data(text_file))
    merged = merged_model(module)
    for block, unit in ((0, 1), (1, 5)):
        column_O = Anatomy(merged).blocks[block].reader("neuron").site.module.weight[:, unit]
        assert not column_O.any()
