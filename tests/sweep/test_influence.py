"""How much blocks and their parts change what passes through them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import BlockEvidence
from lightning_prune.evidence import measure as evidence_of
from lightning_prune.evidence.influence import MEASURES, Angular
from lightning_prune.sweep import evaluating
from lightning_prune.sweep.influence import influence_sweep
from tests.sweep.helpers import (
    CPU,
    block_inputs,
    padded,
    shared_model,
    split,
    states_of,
    tokens_of,
)
from tests.tiny import MODEL_TYPES, tiny_model


def one_token(measure: str, before_D: torch.Tensor, after_D: torch.Tensor) -> float:
    """From the equations, in Python's numbers."""
    b, a = before_D.tolist(), after_D.tolist()
    if measure == "norm":
        return math.sqrt(sum(x * x for x in a))
    if measure == "mse":
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)
    if measure == "mae":
        return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)
    product = sum(x * y for x, y in zip(a, b, strict=True))
    cosine = product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b))
    return 1 - cosine if measure == "cosine" else math.acos(cosine) / math.pi


def influences(model: nn.Module, batches: list, measure: Any, **settings: Any) -> list[float]:
    states, evidence = states_of(model, batches), evidence_of(measure, **settings)
    assert isinstance(evidence, BlockEvidence)
    with evaluating(model):
        found = influence_sweep(states, evidence, states.anatomy.blocks)
        return [values["block"] for _, values in found]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_it_is_the_mean_over_tokens_that_count(measure: str, side: str) -> None:
    """Token by token; the last block's output is not seen from outside, so all but it."""
    batch, model = padded(side), shared_model("llama")
    inputs = block_inputs(model, batch)
    for size in (1, 3):
        values = influences(model, split(batch, size), measure)
        assert len(values) == 3
        for block, value in enumerate(values[:2]):
            pairs = zip(
                inputs[block][tokens_of(batch)], inputs[block + 1][tokens_of(batch)], strict=True
            )
            expected = [one_token(measure, before, after) for before, after in pairs]
            assert value == pytest.approx(sum(expected) / len(expected), rel=1e-4)


@pytest.mark.parametrize("measure", MEASURES)
def test_neither_batches_nor_their_order_show(measure: str) -> None:
    """Sums of the same tokens, up to the rounding of the hidden states."""
    batch, model = padded("left"), shared_model("llama")
    once, *others = (
        influences(model, batches, measure)
        for batches in ([batch], split(batch, 1), split(batch, 1)[::-1], split(batch, 2)[::-1])
    )
    for values in others:
        assert values == pytest.approx(once, rel=1e-5)
    assert others[0] == pytest.approx(others[1], rel=1e-12)


def test_several_blocks_are_taken_as_one() -> None:
    """From the input of the first to the output of the last; too few behind are left out."""
    batch, model = padded("none"), shared_model("llama")
    inputs = block_inputs(model, batch)
    values = influences(model, [batch], "angular", span=2)
    assert len(values) == 2
    one = Angular().begin(CPU)
    one.update(inputs[0], inputs[2], None)
    assert values[0] == pytest.approx(one.result(), rel=1e-6)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_attention_and_mlp_are_told_apart(model_type: str) -> None:
    """A part that adds nothing has no influence, and the other one has all of the block's."""
    model = tiny_model(model_type)
    for site in Anatomy(model).blocks[1].sites:
        if site.table.columns == "neuron":
            site.module.weight.data.zero_()
            if site.module.bias is not None:
                site.module.bias.data.zero_()
    both, attention, mlp = (
        influences(model, [padded("none")], "mse", part=part)[1]
        for part in ("block", "attention", "mlp")
    )
    assert mlp == pytest.approx(0, abs=1e-12)
    assert attention == pytest.approx(both, rel=1e-5)
    assert both > 0
