"""What a block's output loses when one of its Linears is changed."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import Anatomy, Site
from lightning_prune.evidence import InputNorm, Trial
from lightning_prune.sweep.trial import trial_sweep
from tests.sweep.helpers import (
    block_inputs,
    breaking,
    padded,
    shared_model,
    split,
    states_of,
    tokens_of,
    traces,
)
from tests.sweep.test_forward import site_norms
from tests.tiny import tiny_batch, tiny_model


class Louder(Trial):
    """Weights times the norms of what they read: a change that depends on evidence."""

    @property
    def inputs(self) -> InputNorm:
        return InputNorm()

    def changed(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        return site.module.weight * evidence


class Halved(Trial):
    """Half of every weight: a change that depends on nothing."""

    @property
    def inputs(self) -> InputNorm:
        return InputNorm()

    def changed(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
        return site.module.weight / 2


def first(batch: dict[str, torch.Tensor], windows: int) -> dict[str, torch.Tensor]:
    return {name: tensor[:windows] for name, tensor in batch.items()}


@torch.no_grad()
def change(model: nn.Module, batch: dict[str, torch.Tensor], block: int, site: int) -> float:
    """||changed - dense||² / ||dense||² behind a block, mean over tokens, by whole forwards."""
    other, kept = copy.deepcopy(model), tokens_of(batch)
    tried = Anatomy(other).blocks[block].sites[site]
    tried.module.weight.mul_(site_norms(model, batch)[tried.name])
    dense_ND, changed_ND = (
        block_inputs(one, batch)[block + 1][kept].double() for one in (model, other)
    )
    shares = [
        float((changed_D - dense_D).square().sum() / dense_D.square().sum())
        for changed_D, dense_D in zip(changed_ND, dense_ND, strict=True)
    ]
    return sum(shares) / len(shares)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    ("model_type", "side"), [("llama", "left"), ("phi3", "none"), ("opt", "right")]
)
def test_changes_are_those_of_whole_forwards(model_type: str, side: str, size: int) -> None:
    """Each Linear changed alone; behind the last block nothing is seen from outside."""
    model, batch = shared_model(model_type), padded(side)
    states = states_of(model, split(batch, size))
    found = trial_sweep(states, Louder(windows=3), states.anatomy.blocks[:2])
    for block, changes in found:
        assert list(changes) == [site.name for site in block.sites]
        for i, value in enumerate(changes.values()):
            assert value == pytest.approx(change(model, batch, block.index, i), rel=1e-4)


def test_one_loud_token_does_not_hide_the_others() -> None:
    """As the first of a text in real models, whose output is larger by orders of magnitude."""
    model = tiny_model("llama")
    ids_BT = tiny_batch(2, 12)
    with torch.no_grad():
        model.model.embed_tokens.weight[63] *= 1e4
    ids_BT[:, 0] = 63
    states = states_of(model, [{"input_ids": ids_BT}])
    ((_, loud),) = trial_sweep(states, Halved(), states.anatomy.blocks[:1])
    labels_BT = ids_BT.clone()
    labels_BT[:, 0] = -100  # does not count
    states = states_of(model, [{"input_ids": ids_BT, "labels": labels_BT}])
    ((_, others),) = trial_sweep(states, Halved(), states.anatomy.blocks[:1])
    for name, value in others.items():
        assert loud[name] == pytest.approx(value * 11 / 12, rel=0.1), name


@pytest.mark.parametrize("windows", [1, 2])
def test_it_is_tried_on_the_first_windows(windows: int) -> None:
    """Which are taken in whole batches."""
    model, batch = shared_model("llama"), padded("none")

    def changes(data: list[dict[str, torch.Tensor]], windows: int) -> list[dict[str, Any]]:
        states = states_of(model, data)
        sweep = trial_sweep(states, Louder(windows=windows), states.anatomy.blocks)
        return [values for _, values in sweep]

    expected = changes([first(batch, windows)], 9)
    for values, alone in zip(changes(split(batch, 1), windows), expected, strict=True):
        assert values == pytest.approx(alone, rel=1e-5)


def test_only_the_sites_asked_for_are_tried() -> None:
    """As where a method leaves some out by name."""
    states = states_of(shared_model("llama"), [padded("none")])
    block = states.anatomy.blocks[1]
    part = block.part(block.sites[-2:])
    ((_, found),) = trial_sweep(states, Louder(), [part])
    ((_, every),) = trial_sweep(states, Louder(), [block])
    assert found == {site.name: every[site.name] for site in part.sites}


@pytest.mark.parametrize("wrong", ["changed", "run"])
def test_weights_are_put_back_after_an_error(wrong: str) -> None:
    """Of the trial, or of the block in the middle of it."""
    model = tiny_model("llama")
    weights, before = copy.deepcopy(model.state_dict()), traces(model)
    norm = model.model.layers[1].post_attention_layernorm

    class Failing(Louder):
        def changed(self, site: Site, evidence: torch.Tensor) -> torch.Tensor:
            if wrong == "changed" and site.name.endswith("1.mlp.up_proj"):
                raise RuntimeError("broken layer")
            if wrong == "run" and site.name.endswith("1.self_attn.v_proj"):
                breaks.enter_context(breaking(norm))
            return super().changed(site, evidence)

    states = states_of(model, [padded("left")])
    with ExitStack() as breaks, pytest.raises(RuntimeError, match="broken layer"):
        list(trial_sweep(states, Failing(), states.anatomy.blocks))
    assert traces(model) == before
    torch.testing.assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)


def test_no_window_is_no_trial() -> None:
    """All of them would take a forward pass a Linear."""
    with pytest.raises(ValueError, match="Louder: windows=0 is not allowed; it is 1 or more"):
        Louder(windows=0)
