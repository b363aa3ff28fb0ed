"""The dense model beside the pruned one: what reaches a site in both, and what is left behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.anatomy import Anatomy, Site
from lightning_prune.evidence import CrossGram, PairedGram
from lightning_prune.sweep.paired import paired_sweep
from tests.sweep.helpers import padded, split, states_of, tokens_of, traces
from tests.sweep.test_forward import halve
from tests.tiny import tiny_batch, tiny_model

Batches = list[dict[str, torch.Tensor]]


def sweep_and_cut(
    model: nn.Module, batches: Batches, offload: bool = False, skip: int = -1
) -> dict[str, PairedGram]:
    """Evidence of every site; half of the rows go from each site as soon as it is seen."""
    found = {}
    states = states_of(model, batches, offload)
    blocks = [block for block in states.anatomy.blocks if block.index != skip]
    for block, evidence in paired_sweep(states, CrossGram(), blocks):
        for site in block.sites:
            found[site.name] = evidence[site.table.reads]
            halve(site.module)
    return found


@pytest.fixture(autouse=True)
def few_tokens_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is summed up is looked at, and not what is made of few tokens."""
    monkeypatch.setattr(CrossGram, "rows_per_feature", 0)


@torch.no_grad()
def seen(model: nn.Module, batches: Batches, site: Site) -> tuple[torch.Tensor, torch.Tensor]:
    """What a site reads, and the residual stream it adds to, at all tokens that count (N, F)."""
    inputs: list[torch.Tensor] = []
    streams: list[torch.Tensor] = []
    block = next(b for b in Anatomy(model).blocks if site.name.startswith(f"{b.name}."))
    adding = [s for s in block.sites if s.table.adds]
    linear = next(s.module for s in block.sites if s.name == site.name)
    total: list[torch.Tensor] = []

    def start(_: nn.Module, args: tuple[Any, ...]) -> None:
        total[:] = [args[0]]

    def add(_: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> None:
        total.append(output.view_as(total[0]))

    for batch in batches:
        kept = tokens_of(batch)

        def note(_: nn.Module, args: tuple[Any, ...], kept: torch.Tensor = kept) -> None:
            inputs.append(args[0].reshape(*kept.shape, -1)[kept].double())
            streams.append(torch.stack(total).sum(dim=0)[kept].double())

        handles = [block.module.register_forward_pre_hook(start)]
        handles.append(linear.register_forward_pre_hook(note))
        handles += [s.module.register_forward_hook(add) for s in adding]
        model(**batch, use_cache=False)
        for handle in handles:
            handle.remove()
    return torch.cat(inputs), torch.cat(streams)


@pytest.mark.parametrize("model_type", ["llama", "opt", "gemma2"])
@pytest.mark.parametrize("skip", [-1, 1])
def test_evidence_is_that_of_two_forward_passes(model_type: str, skip: int) -> None:
    """Of the dense model, and of one that lost all that was seen before; with left padding.

    The residual error is what the dense stream has more, in front of what the site adds to it; in
    Gemma a norm stands in between, and there is none. Block 1 may not be pruned at all.
    """
    batches = split(padded("left"), 2)
    found = sweep_and_cut(tiny_model(model_type), batches, skip=skip)
    dense, changed = tiny_model(model_type), tiny_model(model_type)
    for block in Anatomy(changed).blocks:
        if block.index == skip:
            continue
        for sites in block.inputs().values():
            input_NI, stream_ND = seen(changed, batches, sites[0])
            dense_NI, dense_ND = seen(dense, batches, sites[0])
            tokens = len(input_NI)
            for site in sites:
                gram_II, cross_II, error_DI = found[site.name]
                expected = {
                    "gram": (gram_II, input_NI.mT @ input_NI / tokens),
                    "cross": (cross_II, dense_NI.mT @ input_NI / tokens),
                }
                if site.table.adds:
                    assert error_DI is not None
                    right_DI = (dense_ND - stream_ND).mT @ input_NI / tokens
                    expected["error"] = (error_DI, right_DI)
                else:
                    assert error_DI is None
                for own, right in expected.values():
                    limit = 1e-5 * float(right.abs().max()) + 1e-7
                    torch.testing.assert_close(own.double(), right, rtol=1e-4, atol=limit)
            for site in sites:
                halve(site.module)


def test_before_anything_is_pruned_both_models_are_one() -> None:
    """The first input: the cross product is the Gram matrix; and the first error is zero."""
    found = sweep_and_cut(tiny_model("llama"), split(padded("left"), 2))
    first = found["model.layers.0.self_attn.q_proj"]
    torch.testing.assert_close(first.gram_II, first.cross_II, rtol=1e-6, atol=1e-7)
    output = found["model.layers.0.self_attn.o_proj"]
    assert output.error_DI is not None
    assert not output.error_DI.any()
    assert found["model.layers.0.mlp.down_proj"].error_DI.any()  # type: ignore[union-attr]


def test_batches_of_different_lengths_add_up() -> None:
    """Sums over tokens of each batch alone."""
    batches = [{"input_ids": tiny_batch(2, 12)}, {"input_ids": tiny_batch(1, 5, seed=2)}]
    found = sweep_and_cut(tiny_model("llama"), batches)
    alone = [sweep_and_cut(tiny_model("llama"), [batch]) for batch in batches]
    for name, paired in found.items():
        for own, *parts in zip(paired, *(one[name] for one in alone), strict=True):
            if own is not None:
                expected = (24 * parts[0].double() + 5 * parts[1].double()) / 29
                limit = 1e-6 * float(expected.abs().max()) + 1e-9
                torch.testing.assert_close(own, expected.float(), rtol=1e-4, atol=limit)


@pytest.mark.parametrize("offload", [False, True])
def test_it_is_the_same_bit_for_bit_every_time(offload: bool) -> None:
    """Also with the hidden states kept on the CPU."""
    first = sweep_and_cut(tiny_model("llama"), split(padded("left"), 1))
    second = sweep_and_cut(tiny_model("llama"), split(padded("left"), 1), offload)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("failing", [2, 5])
def test_an_error_leaves_nothing(failing: int) -> None:
    """In the pruned model's call or in the dense one's, of the second block."""
    model = tiny_model("llama")
    before = traces(model)

    class Breaking(nn.Module):
        calls = 0

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *args: Any) -> Any:
            Breaking.calls += 1
            if Breaking.calls == failing:
                raise RuntimeError("broken activation")
            return self.inner(*args)

    mlp: Any = model.model.layers[1].mlp
    inner, mlp.act_fn = mlp.act_fn, Breaking(mlp.act_fn)
    states = states_of(model, split(padded("left"), 1))
    with pytest.raises(RuntimeError, match="broken activation"):
        list(paired_sweep(states, CrossGram(), states.anatomy.blocks))
    mlp.act_fn = inner
    assert traces(model) == before
    assert torch.is_grad_enabled()


def test_a_caller_that_stops_leaves_nothing() -> None:
    """As when what it decides fails."""
    model = tiny_model("llama")
    before, weights = traces(model), copy.deepcopy(model.state_dict())
    states = states_of(model, split(padded("left"), 1))
    sweep = paired_sweep(states, CrossGram(), states.anatomy.blocks)
    for _ in range(3):
        next(sweep)
    sweep.close()
    assert traces(model) == before
    torch.testing.assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)
