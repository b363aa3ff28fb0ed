"""Attributions and circuits as values, and how they are made.

Axes: O outputs, I inputs, U units, S features of one unit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Attributions, CircuitUnits, attribute
from lightning_prune.anatomy import Anatomy
from lightning_prune.attribution import attnlrp
from lightning_prune.attribution.attributions import contrast
from lightning_prune.evidence import Logit, OfLogits
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model


def batches(total: int = 4, tokens: int = 9, size: int = 2) -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": part} for part in tiny_batch(total, tokens).split(size)]


def relevance_of_activations(model: nn.Module, kind: str) -> dict[str, torch.Tensor]:
    """Of what the readers read: activation times what flows back through the reader alone."""
    anatomy, seen, hooks = Anatomy(model), {}, []
    for block in anatomy.blocks:

        def keep(_: nn.Module, args: Any, output: torch.Tensor, index: int = block.index) -> None:
            output.retain_grad()
            seen[index] = args[0].detach(), output

        hooks.append(block.reader(kind).site.module.register_forward_hook(keep))
    with attnlrp(model):
        logits = model(input_ids=torch.cat([b["input_ids"] for b in batches()])).logits
        logits[:, -1].amax(dim=-1).mean().backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    table = {}
    for block in anatomy.blocks:
        read, written = seen[block.index]
        assert written.grad is not None
        back = written.grad @ block.reader(kind).site.module.weight.detach()
        relevance_I = (read * back).flatten(0, -2).sum(dim=0)
        table[str(block.index)] = relevance_I.unflatten(0, (block.units(kind), -1)).sum(dim=1)
    return table


@pytest.mark.parametrize("kind", ["neuron", "group"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_relevance_of_a_unit_is_that_of_its_activation(model_type: str, kind: Any) -> None:
    """Of all its features together; there is no bias in what reads it that could take a part."""
    model = tiny_model(model_type)
    made = attribute(model, batches(), kind=kind)
    for name, expected_U in relevance_of_activations(model, kind).items():
        torch.testing.assert_close(made.values[name], expected_U, rtol=1e-3, atol=1e-5)


def test_gated_neurons_are_ranked_as_by_the_rows_that_write_them() -> None:
    """The relevance of a row of gate or up is half of the neuron's (methods of the paper)."""
    model = tiny_model("llama", mlp_bias=False)
    units = attribute(model, batches(), kind="neuron")
    rows = attribute(model, batches(), kind="weight", include="*.up_proj")
    for block in Anatomy(model).blocks:
        half_U = rows.values[f"{block.name}.mlp.up_proj.weight"].sum(dim=1)
        whole_U = units.values[str(block.index)]
        torch.testing.assert_close(2 * half_U, whole_U, rtol=1e-3, atol=1e-5)


def test_each_way_gives_weights_its_own_number() -> None:
    """By the slow way: one backward pass of the mean, or the norms of inputs."""
    model = tiny_model("llama")
    ids_BT = torch.cat([b["input_ids"] for b in batches()])
    site = Anatomy(model).blocks[1].sites[-1]
    seen = []
    hook = site.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    logits_BTV = model(input_ids=ids_BT).logits
    hook.remove()
    weight_OI = site.module.weight
    plain_OI = torch.autograd.grad(logits_BTV[:, -1].amax(dim=-1).mean(), weight_OI)[0]
    loss = model(input_ids=ids_BT, labels=ids_BT).loss
    task_OI = torch.autograd.grad(loss, weight_OI)[0]
    weight_OI = weight_OI.detach()
    expected = {
        "gradient": weight_OI * plain_OI,
        "snip": (weight_OI * task_OI).abs(),
        "wanda": weight_OI.abs() * seen[0].flatten(0, 1).norm(dim=0),
        "magnitude": weight_OI.abs(),
    }
    for by, expected_OI in expected.items():
        made = attribute(model, batches(), by=by, kind="weight", include=site.name)  # type: ignore[arg-type]
        assert list(made.values) == [site.weight_name]
        torch.testing.assert_close(made.values[site.weight_name], expected_OI, rtol=1e-3, atol=1e-6)


def test_any_function_of_the_logits_can_be_explained() -> None:
    """The difference of two logits is one."""
    model = tiny_model("llama")
    known = attribute(model, batches(), objective=Logit(token=5, against=7))
    own = attribute(
        model, batches(), objective=OfLogits(function=lambda logits: logits[:, 5] - logits[:, 7])
    )
    for name, value_U in known.values.items():
        torch.testing.assert_close(own.values[name], value_U)
    with pytest.raises(ValueError, match="a number for each place"):
        attribute(model, batches(), objective=OfLogits(function=lambda logits: logits))


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attribute(model, batches())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "lrp"}, "by='lrp' is not allowed; it is one of relevance, gradient"),
        ({"kind": "head"}, "kind='head' is not allowed"),
        (
            {"objective": Logit(token=64)},
            "Logit: token=64 is not allowed; it is a number from 0 to 63",
        ),
        ({"objective": Logit(token=3, against=3)}, "against=3 is not allowed; it is another token"),
        ({"kind": "weight", "include": "*.fc1"}, "matches no Linear; names are like"),
        ({"include": "*.up_proj"}, r"name Linears, and kind='neuron' is about units"),
        ({"batches": []}, "no reference samples"),
    ],
)
def test_what_cannot_be_attributed_is_said(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attribute(tiny_model("llama"), **({"batches": batches()} | arguments))


# --- as values ---


def some(seed: int, kind: Any = "neuron") -> Attributions:
    generator = torch.Generator().manual_seed(seed)
    shape = (5, 3) if kind == "weight" else (7,)
    values = {name: torch.randn(shape, generator=generator) for name in ("0", "2")}
    return Attributions(kind, values, {"seed": seed})


def test_they_are_saved_and_read_again(tmp_path: Path) -> None:
    made = some(0)
    again = Attributions.load(made.save(tmp_path / "deep" / "a.safetensors"))
    assert (again.kind, again.facts, again.fingerprint()) == (
        "neuron",
        {"seed": 0},
        made.fingerprint(),
    )


def test_the_mean_is_over_sets_alike() -> None:
    mean = Attributions.mean([some(0), some(1), some(2)])
    expected = sum(some(seed).values["2"] for seed in range(3)) / 3
    torch.testing.assert_close(mean.values["2"], expected)
    assert mean.facts == {"mean_of": [{"seed": 0}, {"seed": 1}, {"seed": 2}]}
    with pytest.raises(ValueError, match="neurons .* and of weights .* do not go together"):
        Attributions.mean([some(0), some(0, "weight")])


def test_a_contrast_is_the_difference() -> None:
    """Normalised: whatever the scale of either. Guarded: of the general one's magnitude."""
    general, undesired = some(0), some(1)
    plain = contrast(general, undesired)
    torch.testing.assert_close(plain.values["0"], general.values["0"] - undesired.values["0"])
    guarded = contrast(general, undesired, "guarded")
    expected_U = general.values["0"].abs() - undesired.values["0"]
    torch.testing.assert_close(guarded.values["0"], expected_U)
    with pytest.raises(ValueError, match="are the same numbers"):
        contrast(general, some(0))
    scaled = Attributions("neuron", {n: 50 * v for n, v in undesired.values.items()})
    one, other = (contrast(general, u, "normalised") for u in (undesired, scaled))
    for name in one.values:
        torch.testing.assert_close(one.values[name], other.values[name])


@pytest.mark.parametrize("content", [b"", b"not one", None])
def test_what_is_no_file_of_attributions_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.safetensors"
    if content is None:
        with pytest.raises(FileNotFoundError, match="no attributions at"):
            Attributions.load(path)
        return
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no file of attributions, or damaged"):
        Attributions.load(path)


# --- circuits ---


@pytest.mark.parametrize("kind", ["neuron", "weight"])
def test_a_circuit_is_the_lowest_of_all(kind: Any) -> None:
    """Wherever they are, from the lowest up."""
    ranked = some(3, kind)
    circuit = CircuitUnits.lowest(ranked, 6)
    everything = sorted(
        (float(value), (name, *place))
        for name, tensor in ranked.values.items()
        for place, value in zip(_places(tensor), tensor.flatten(), strict=True)
    )
    assert list(circuit.members) == [member for _, member in everything[:6]]
    assert list(circuit.scores) == pytest.approx([score for score, _ in everything[:6]])
    assert circuit.first(2).members == circuit.members[:2]
    assert circuit.of({"2"}).members == [m for m in circuit.members if m[0] == "2"]


def _places(tensor: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(place) for place in torch.ones_like(tensor).nonzero().tolist()]


def test_a_random_one_is_the_seeds() -> None:
    like = some(0)
    one, again, other = (CircuitUnits.random(like, 5, seed) for seed in (1, 1, 2))
    assert one.members == again.members
    assert one.members != other.members
    assert len(set(one.members)) == 5
    turned = Attributions(like.kind, dict(reversed(like.values.items())))  # as files may give them
    assert CircuitUnits.random(turned, 5, 1).members == one.members


@pytest.mark.parametrize("kind", ["neuron", "weight"])
def test_a_list_is_json_that_a_person_can_write(tmp_path: Path, kind: Any) -> None:
    circuit = CircuitUnits.lowest(some(3, kind), 4)
    again = CircuitUnits.load(circuit.save(tmp_path / "deep" / "circuit.json"))
    assert (again.kind, again.members) == (kind, circuit.members)
    assert again.facts == {"seed": 3, "parts": some(3, kind).count}
    assert repr(again) == repr(circuit)
    by_hand = {"kind": "neuron", "members": [{"in": "3", "at": 17}]}
    (tmp_path / "own.json").write_text(json.dumps(by_hand))
    assert CircuitUnits.load(tmp_path / "own.json").members == [("3", 17)]


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "circuit.json"
    with pytest.raises(FileNotFoundError, match="no circuit at"):
        CircuitUnits.load(path)
    for text in ("", "[]", '{"kind": "neuron"}', '{"kind": "neuron", "members": [3]}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no list of a circuit"):
            CircuitUnits.load(path)
    path.write_text('{"format": 2, "kind": "neuron", "places": {"3": [17]}}')
    with pytest.raises(ValueError, match=r"is of format 2, and this version .* reads 1: update"):
        CircuitUnits.load(path)
    with pytest.raises(ValueError, match=r"count=99 of 14 neurons; 1 to 14 can go"):
        CircuitUnits.lowest(some(0), 99)
