"""The forward sweep: what it collects, what later blocks see, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import Anatomy
from lightning_prune.evidence import InputNorm, Propagate
from lightning_prune.sweep.forward import forward_sweep
from tests.sweep.helpers import (
    counting_blocks,
    padded,
    shared_model,
    split,
    states_of,
    tokens_of,
    traces,
)
from tests.tiny import MODEL_TYPES, tiny_model


@torch.no_grad()
def site_norms(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The norm of every site's input over the tokens, by hooks in the model's own forward."""
    found: dict[str, torch.Tensor] = {}
    kept = tokens_of(batch)
    handles = []
    for block in Anatomy(model).blocks:
        for site in block.sites:

            def note(_: nn.Module, args: tuple[Any, ...], name: str = site.name) -> None:
                input_NI = args[0].reshape(*kept.shape, -1)[kept].double()
                found[name] = input_NI.norm(dim=0).float()

            handles.append(site.module.register_forward_pre_hook(note))
    model(**batch, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def swept_norms(
    model: nn.Module,
    batches: list[dict[str, torch.Tensor]],
    propagate: Propagate = "none",
    offload: bool = False,
    cut: bool = False,
) -> dict[str, torch.Tensor]:
    """The same by the sweep; with `cut`, each block loses half of its last site's rows."""
    found = {}
    states = states_of(model, batches, offload)
    for block, evidence in forward_sweep(states, InputNorm(), states.anatomy.blocks, propagate):
        found |= {site.name: evidence[site.table.reads] for site in block.sites}
        if cut:
            halve(block.sites[-1].module)
    return found


@torch.no_grad()
def halve(linear: nn.Linear) -> None:
    linear.weight[: linear.out_features // 2] = 0


@pytest.mark.parametrize(
    ("side", "propagate"),
    [
        ("none", "none"),
        ("left", "block"),
        ("right", "block"),
        ("left", "layer"),
        ("none", "layer"),
    ],
)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_site_is_heard(model_type: str, side: str, propagate: Propagate) -> None:
    """Each site's evidence is that of its own input in the model's own forward."""
    model, batch = shared_model(model_type), padded(side)
    found = swept_norms(model, split(batch, 2), propagate)
    torch.testing.assert_close(found, site_norms(model, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_pruned_propagation_shows_the_changes_to_later_blocks(model_type: str) -> None:
    """Evidence of block i is that of the model whose blocks before i were changed."""
    model, batch = tiny_model(model_type), padded("left")
    found = swept_norms(model, split(batch, 2), "block", cut=True)
    changed = tiny_model(model_type)
    for block in Anatomy(changed).blocks:
        own = {name: v for name, v in found.items() if name.startswith(block.name + ".")}
        expected = site_norms(changed, batch)
        for name, norm_I in own.items():
            torch.testing.assert_close(norm_I, expected[name], rtol=1e-4, atol=1e-5)
        halve(block.sites[-1].module)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_dense_propagation_hides_the_changes(model_type: str) -> None:
    """Evidence is that of the dense model, whatever the caller does to the blocks."""
    dense, batch = shared_model(model_type), padded("left")
    found = swept_norms(tiny_model(model_type), split(batch, 2), "none", cut=True)
    torch.testing.assert_close(found, site_norms(dense, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("propagate", ["block", "layer", "none"])
def test_offloading_changes_nothing(propagate: Propagate) -> None:
    """Where hidden states wait does not show in what is collected."""
    batches = split(padded("left"), 2)
    torch.testing.assert_close(
        swept_norms(tiny_model("llama"), batches, propagate, offload=True),
        swept_norms(tiny_model("llama"), batches, propagate),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize(
    ("blocks", "propagate", "ran"),
    [
        ([0, 1, 2], "block", [0, 0, 1, 1, 2]),
        ([0, 1, 2], "none", [0, 1, 2]),
        ([0, 1, 2], "layer", [0, 1, 2]),
        ([1], "block", [0, 1]),
        ([0, 1], "block", [0, 0, 1]),
        ([2], "none", [0, 1, 2]),
        ([2], "layer", [0, 1, 2]),
        ([0], "block", [0]),
    ],
)
def test_only_what_is_needed_runs(blocks: list[int], propagate: Propagate, ran: list[int]) -> None:
    """Of L blocks 2L - 1 passes in "block", L in the others, none after the last."""
    model = tiny_model("llama")
    with counting_blocks(model) as seen:
        states = states_of(model, [padded("none")])
        wanted = [states.anatomy.blocks[i] for i in blocks]
        found = [block.index for block, _ in forward_sweep(states, InputNorm(), wanted, propagate)]
    assert sorted(set(found)) == blocks
    assert seen == ran


def test_the_passes_grow_with_the_batches() -> None:
    """Every batch goes through each pass once."""
    model = tiny_model("llama")
    with counting_blocks(model) as seen:
        swept_norms(model, split(padded("none"), 1), "block")
    assert len(seen) == 3 * 5


def test_batches_may_be_read_only_once() -> None:
    """An iterator of batches is enough."""
    states = states_of(tiny_model("llama"), iter(split(padded("left"), 2)))
    blocks = [states.anatomy.blocks[i] for i in (0, 2)]
    assert [block.index for block, _ in forward_sweep(states, InputNorm(), blocks)] == [0, 2]


@pytest.mark.parametrize("propagate", ["block", "layer", "none"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_nothing_is_left_behind(model_type: str, propagate: Propagate) -> None:
    """Not after the sweep, not when it is left early, not after an error in the middle."""
    model = shared_model(model_type)
    before = traces(model)
    swept_norms(model, split(padded("left"), 2), propagate)
    assert traces(model) == before

    states = states_of(model, split(padded("left"), 2))
    sweep = forward_sweep(states, InputNorm(), states.anatomy.blocks, propagate)
    next(sweep)
    sweep.close()
    assert traces(model) == before

    class Failing(InputNorm):
        def update(self, *_: Any) -> None:
            raise RuntimeError("out of memory")

    states = states_of(model, split(padded("left"), 2))
    with pytest.raises(RuntimeError, match="out of memory"):
        next(forward_sweep(states, Failing(), states.anatomy.blocks, propagate))
    assert traces(model) == before


@pytest.mark.parametrize("propagate", ["block", "none"])
def test_the_head_can_be_heard(propagate: Propagate) -> None:
    """It is one more block behind the last; its logits are never computed."""
    model, batch = tiny_model("llama"), padded("left")
    states = states_of(model, split(batch, 2))
    block, evidence = next(forward_sweep(states, InputNorm(), [states.anatomy.head], propagate))
    kept = tokens_of(batch)
    hidden_BTD = model.model(**batch, use_cache=False).last_hidden_state
    expected = hidden_BTD[kept].double().norm(dim=0).float()
    assert block.sites[0].weight_name == "lm_head.weight"
    torch.testing.assert_close(evidence["head_input"], expected, rtol=1e-4, atol=1e-5)
