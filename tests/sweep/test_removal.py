"""What the perplexity makes of a block that is left out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from lightning_prune.anatomy import Anatomy
from lightning_prune.evaluation import perplexity
from lightning_prune.evidence import Removal
from lightning_prune.sweep import evaluating
from lightning_prune.sweep.removal import removal_sweep
from tests.sweep.helpers import counting_blocks, padded, shared_model, split, states_of, traces
from tests.tiny import tiny_model

SPEAKERS = {"attention": ["query"], "mlp": ["neuron"], "block": ["query", "neuron"]}


def rises(batches: list[dict[str, torch.Tensor]], windows: int = 0) -> list[float]:
    model = shared_model("llama")
    states = states_of(model, batches)
    with evaluating(model):
        found = removal_sweep(states, Removal(windows=windows), states.anatomy.blocks)
        return [values["block"] for _, values in found]


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "phi3", "opt"])
@pytest.mark.parametrize("part", SPEAKERS)
def test_removal_is_the_rise_of_the_perplexity(model_type: str, part: Any) -> None:
    """Measured again on a copy whose block does nothing; the model is left as it was."""
    model, batch = tiny_model(model_type), padded("left")
    before, states = traces(model), states_of(model, split(batch, 2))
    with evaluating(model):
        wanted = Removal(part=part, windows=0)
        sweep = removal_sweep(states, wanted, states.anatomy.blocks[1:])
        found = {block.index: values["block"] for block, values in sweep}
    assert list(found) == [1, 2]
    assert traces(model) == before
    dense = perplexity(model, [batch])
    for index, value in found.items():
        other = copy.deepcopy(model)
        for site in Anatomy(other).blocks[index].sites:
            if site.table.columns in SPEAKERS[part]:
                site.module.weight.data.zero_()
                if site.module.bias is not None and part == "block":  # a bias stays
                    site.module.bias.data.zero_()
        assert value == pytest.approx(perplexity(other, [batch]) - dense, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_neither_batches_nor_their_order_show(side: str) -> None:
    """Every predicted token counts once, and padding not at all."""
    batch = padded(side)
    expected = rises([batch])
    for batches in (split(batch, 1), split(batch, 1)[::-1], split(batch, 2)):
        assert rises(batches) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("windows", [1, 2, 3, 9])
def test_the_first_windows_count_however_they_are_batched(windows: int) -> None:
    """Also where a batch has more than are asked for; all that there are, where it has fewer."""
    batch = padded("none")
    expected = rises([{name: tensor[:windows] for name, tensor in batch.items()}])
    for size in (1, 2, 3):
        assert rises(split(batch, size), windows) == pytest.approx(expected, rel=1e-4)
    assert (rises([batch]) == pytest.approx(expected, rel=1e-4)) == (windows >= 3)


def test_each_trial_starts_in_front_of_its_block() -> None:
    """Blocks run once on the way, once behind every block left out, and once dense."""
    model = shared_model("llama")
    with evaluating(model):
        states = states_of(model, [padded("none")])
        with counting_blocks(model) as seen:
            list(removal_sweep(states, Removal(windows=0), states.anatomy.blocks))
    assert seen == [0, 1, 2, 1, 2, 0, 2, 1]


def test_windows_that_predict_nothing_are_refused() -> None:
    """Windows of one token."""
    with pytest.raises(ValueError, match="ask for no token; use windows of two or more"):
        rises([padded("none", tokens=1)])
